"""`psctl up`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.options import DEFAULT_NAME, Json, Name, RayAddress
from ps.cli.output import err, out, print_json
from ps.errors import NotFound

if TYPE_CHECKING:
    from ps.cluster.ray.deployment import Deployment
    from ps.cluster.ray.local import State

PLACE = 10


def up(
    shards: Annotated[
        int | None, typer.Option("--shards", "-n", min=1, help="How many shards: about one per CPU core.")
    ] = None,
    name: Name = DEFAULT_NAME,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            exists=True,
            dir_okay=False,
            help="A service file in YAML; the options here take precedence over it.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", help="The port that clients connect to; 0 for any.")] = None,
    ray_address: RayAddress = "",
    as_json: Json = False,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Seconds to wait for the shards.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end the service on SIGTERM or Ctrl-C: for containers.")
    ] = False,
) -> None:
    """Starts a coordinator and shards, and returns when they answer. --json: {name, address, shards}."""
    from ps.cluster.ray import local, ports
    from ps.cluster.ray.deployment import Deployment

    deployment = Deployment.of(config_file, shards=shards, port=port, timeout_s=timeout_s)
    if ray_address and foreground:
        raise typer.BadParameter("--foreground is for a Ray of its own; in a cluster the service needs nobody to stay")
    local.make_folder()
    if not ray_address:
        _check_not_running(name)
        ports.check_free(deployment.service.network.host, deployment.launch.port)
    if foreground:
        return local.keep(name, deployment)
    wanted = deployment.launch.shards
    if not ray_address:
        from ps.server.compiling import compile_kernels

        compile_kernels()  # here, where the user sees it, and not in the keeper
    with err.status(f"starting {wanted} shards..."):
        state = _up_in_cluster(name, deployment, ray_address) if ray_address else local.start_keeper(name, deployment)
    if as_json:
        print_json({"name": name, "address": state.address, "shards": wanted})
        return None
    out.print(f"service [bold]{name}[/bold] with {wanted} shards at [bold]{state.address}[/bold]")
    out.print(hint(state), markup=False)
    return None


def hint(state: State) -> str:
    """Says what to do with a service that has started."""
    named = _named(state.name)
    return f'connect with ps.connect("{state.address}"); psctl status{named} shows it, psctl down{named} ends it'


def _named(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


def _check_not_running(name: str) -> None:
    """Raises BadParameter if a service of this name runs on this host. In a Ray cluster Ray itself knows: a state file
    may be older than the cluster."""
    from ps.cluster.ray import local

    try:
        running = local.read_state(name)
    except NotFound:
        return
    raise typer.BadParameter(f"service {name!r} runs already at {running.address}; psctl down{_named(name)} ends it")


def _up_in_cluster(name: str, deployment: Deployment, ray_address: str) -> State:
    from ps.cluster.ray import local
    from ps.cluster.ray.launch import deploy

    service = deploy(deployment, name=name, ray_address=ray_address, detached=True)
    state = local.State(name, service.address, pid=0, ray_address=ray_address)
    local.write_state(state)
    return state
