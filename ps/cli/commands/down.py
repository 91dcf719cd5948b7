"""`psctl down`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ps.cli.options import DEFAULT_NAME, Json, Name
from ps.cli.output import err, out, print_json
from ps.errors import DeadlineExceeded
from ps.seconds import seconds

if TYPE_CHECKING:
    from ps.cluster.ray.local import State

PLACE = 20


def down(
    name: Name = DEFAULT_NAME,
    as_json: Json = False,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the drain.")] = 60.0,
) -> None:
    """Drains and ends a service that `psctl up` started. --json: {name, ended}."""
    from ps.cluster.ray import local

    state = local.read_state(name)
    with err.status("draining..."):
        ended = _end(state, timeout_s)
    if not ended:
        raise DeadlineExceeded(
            f"service {name!r} (process {state.pid}) has not ended within {timeout_s:g} s; it is still draining"
        )
    if as_json:
        print_json({"name": name, "ended": True})
    else:
        out.print(f"service {name!r} has ended", markup=False)


def _end(state: State, timeout_s: float) -> bool:
    from ps.cluster.ray import local

    return local.stop_keeper(state, seconds(timeout_s, "--timeout")) if state.pid else _end_in_cluster(state)


def _end_in_cluster(state: State) -> bool:
    from ps.cluster.ray import local
    from ps.cluster.ray.joining import join
    from ps.cluster.ray.launch import stop_actors

    join(state.ray_address)
    ended = stop_actors(state.name) > 0
    local.state_file(state.name).unlink(missing_ok=True)
    return ended
