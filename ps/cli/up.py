"""psctl up."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ps.cli.options import DEFAULT_NAME, Json, Name, RayAddress
from ps.cli.output import err, out, print_json
from ps.errors import NotFound

if TYPE_CHECKING:
    from ps.cluster.local import State


def up(
    shards: Annotated[int, typer.Option("--shards", "-n", min=1, help="How many shards: about one per CPU core.")] = 1,
    name: Name = DEFAULT_NAME,
    config_file: Annotated[
        Path | None, typer.Option("--config", exists=True, dir_okay=False, help="Service settings in YAML.")
    ] = None,
    port: Annotated[int, typer.Option("--port", help="The port that clients connect to; 0 for any.")] = 0,
    ray_address: RayAddress = "",
    as_json: Json = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the shards.")] = 120.0,
) -> None:
    """Starts a coordinator and shards, and returns when they answer. --json: {name, address, shards}."""
    from ps.cluster import local
    from ps.config import ServiceConfig

    config = ServiceConfig.from_yaml(config_file) if config_file else ServiceConfig()
    try:
        running = local.read_state(name)
    except NotFound:
        pass
    else:
        raise typer.BadParameter(f"service {name!r} runs already at {running.address}; psctl down ends it")
    with err.status(f"starting {shards} shards..."):
        if ray_address:
            state = _up_in_cluster(name, shards, config, port, ray_address, timeout_s)
        else:
            state = local.start_keeper(name, shards, config, port, timeout_s)
    if as_json:
        print_json({"name": name, "address": state.address, "shards": shards})
        return
    out.print(f"service [bold]{name}[/bold] with {shards} shards at [bold]{state.address}[/bold]")
    out.print(f'connect with ps.connect("{state.address}"); psctl status shows it, psctl down ends it')


def _up_in_cluster(name: str, shards: int, config: Any, port: int, ray_address: str, timeout_s: float) -> State:
    from ps.cluster import local
    from ps.cluster.launch import launch

    service = launch(
        shards,
        name=name,
        config=config,
        port=port,
        ray_address=ray_address,
        detached=True,
        timeout_s=timeout_s,
    )
    state = local.State(name, service.address, pid=0, ray_address=ray_address)
    local.write_state(state)
    return state
