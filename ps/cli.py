"""psctl: start, look at and stop a service."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ps.errors import NotFound, PsError

app = typer.Typer(
    name="psctl",
    help="Starts, shows and stops an embedding parameter server.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True, markup=False)  # what it prints quotes others: [host:port] is no style

Name = Annotated[str, typer.Option("--name", help="The service's name; several can run side by side.")]
RayAddress = Annotated[
    str,
    typer.Option(
        "--ray-address", envvar="RAY_ADDRESS", help="A running Ray cluster to join; without it, a local one is started."
    ),
]


@app.command()
def up(
    shards: Annotated[
        int | None, typer.Option("--shards", "-n", min=1, help="How many shards: about one per CPU core.")
    ] = None,
    name: Name = "default",
    config_file: Annotated[
        Path | None,
        typer.Option("--config", exists=True, dir_okay=False, help="A service file in YAML; options go before it."),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port that clients connect to; 0 for any.")] = None,
    ray_address: RayAddress = "",
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds to wait for the shards.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end the service on SIGTERM or Ctrl-C: for containers.")
    ] = False,
) -> None:
    """Starts a coordinator and shards, and returns when they answer."""
    from ps.cluster import local
    from ps.cluster.deployment import Deployment

    deployment = Deployment.of(config_file, shards=shards, port=port, timeout_s=timeout_s)
    if ray_address and foreground:
        raise typer.BadParameter("--foreground is for a Ray of its own; in a cluster the service needs nobody to stay")
    if not ray_address:
        _check_not_running(name)
    if foreground:
        return local.keep(name, deployment)
    with out.status(f"starting {deployment.launch.shards} shards..."):
        state = _up_in_cluster(name, deployment, ray_address) if ray_address else local.start_keeper(name, deployment)
    out.print(f"service [bold]{name}[/bold] with {deployment.launch.shards} shards at [bold]{state.address}[/bold]")
    out.print(f'connect with ps.connect("{state.address}"); psctl status shows it, psctl down ends it', highlight=False)


def _check_not_running(name: str) -> None:
    """On this host. In a Ray cluster Ray itself knows: a state file may be older than the cluster."""
    from ps.cluster import local

    try:
        running = local.read_state(name)
    except NotFound:
        return
    raise typer.BadParameter(f"service {name!r} runs already at {running.address}; psctl down ends it")


@app.command()
def down(
    name: Name = "default",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the drain.")] = 60.0,
) -> None:
    """Drains and ends a service that `psctl up` started."""
    from ps.cluster import local

    state = local.read_state(name)
    with out.status("draining..."):
        ended = local.stop_keeper(state, timeout_s) if state.pid else _down_in_cluster(state)
    if not ended:
        err.print(f"service {name!r} (process {state.pid}) has not ended within {timeout_s:g} s; it is still draining")
        raise typer.Exit(1)
    out.print(f"service {name!r} has ended")


@app.command()
def status(
    name: Name = "default",
    address: Annotated[
        str, typer.Option("--address", help="host:port of any shard or the coordinator, instead of a name.")
    ] = "",
) -> None:
    """Shows shards, tables, rows and bytes."""
    from ps.client.client import connect
    from ps.cluster import local

    with connect(address or local.read_state(name).address, timeout_s=10.0) as client:
        routing = client.connection.routing
        stats = client.stats()
    shards = Table("shard", "address", "metrics", "state", "pushes", title="shards")
    for info, shard in zip(routing.shards, stats["shards"], strict=True):
        state = "DEGRADED" if info.state == "SERVING" and shard["degraded"] else info.state
        shards.add_row(str(info.shard_id), info.address, info.metrics_address, state, f"{shard['version']:,}")
    out.print(shards)
    for info, shard in zip(routing.shards, stats["shards"], strict=True):
        if shard["degraded"]:
            out.print(Text(f"shard {info.shard_id} is degraded: {shard['degraded']}", "yellow"))
    out.print(_tables(stats["shards"]))


def _tables(shards: Sequence[dict[str, Any]]) -> Table:
    from ps.client.reports import tiers

    table = Table("table", "tier", "rows", "bytes", "bytes a row", title="tables")
    for share in tiers(shards):
        a_row = f"{share.nbytes / share.rows:,.0f}" if share.rows else "-"
        table.add_row(share.table, share.tier, f"{share.rows:,}", f"{share.nbytes:,}", a_row)
    return table


def _up_in_cluster(name: str, deployment: Any, ray_address: str) -> Any:
    from ps.cluster import local
    from ps.cluster.launch import deploy

    service = deploy(deployment, name=name, ray_address=ray_address, detached=True)
    state = local.State(name, service.address, pid=0, ray_address=ray_address)
    local.write_state(state)
    return state


def _down_in_cluster(state: Any) -> bool:
    from ps.cluster import local
    from ps.cluster.launch import join, stop_actors

    join(state.ray_address)
    ended = stop_actors(state.name) > 0
    local.state_file(state.name).unlink(missing_ok=True)
    return ended


def main() -> None:
    """Entry point: errors of ours are one line, not a stack."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        app()
    except PsError as error:
        err.print(Text.assemble((type(error).__name__, "red"), f": {error}"))
        sys.exit(1)


if __name__ == "__main__":
    main()
