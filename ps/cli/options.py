"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Name = Annotated[str, typer.Option("--name", help="The service's name; several can run side by side.")]
Address = Annotated[
    str, typer.Option("--address", help="host:port of the coordinator or of any shard, instead of a name.")
]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address", envvar="RAY_ADDRESS", help="A running Ray cluster to join; without it, a local one is started."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of text.")]
TimeoutS = Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for each shard's answer.")]

DEFAULT_NAME = "default"
ANSWER_TIMEOUT_S = 2.0
