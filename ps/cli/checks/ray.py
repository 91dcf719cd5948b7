"""`psctl doctor` checks Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ps.cli.checks.findings import Finding, fail, ok, warn
from ps.errors import Unavailable

if TYPE_CHECKING:
    from ps.cluster.ray.state import RayState


def token(environment: Mapping[str, str]) -> Finding:
    """Checks whether Ray asks its clients for a token. The token itself is not read."""
    if environment.get("RAY_AUTH_MODE", "token").lower() != "token":
        return warn(
            "ray token",
            f"RAY_AUTH_MODE is {environment['RAY_AUTH_MODE']}: who reaches Ray's ports can run code here",
            "unset RAY_AUTH_MODE; `ray get-auth-token --generate` makes a token, each host needs it",
        )
    return ok("ray token", "Ray's token authentication is not switched off")


def cluster(ray_address: str, service: str, shards: int) -> Iterator[Finding]:
    """Checks whether the cluster can be reached and has room."""
    if not ray_address:
        yield ok("ray", "no --ray-address: psctl up starts a Ray of its own")
        return
    from ps.cluster.ray.state import ray_state

    try:
        state = ray_state(ray_address, service)
    except Unavailable as error:
        yield fail(
            "ray", str(error), "ray start --head there, or ray up with a cluster file; the same Ray version on both"
        )
        return
    yield from findings(state, service, shards)


def findings(state: RayState, service: str, shards: int) -> Iterator[Finding]:
    """Judges the state of a cluster."""
    cpus, free = state.resources.get("CPU", 0), state.available.get("CPU", 0)
    says = f"{state.nodes} nodes, {free:g} of {cpus:g} CPUs free"
    if state.dead_nodes:
        yield warn("ray nodes", f"{says}; {state.dead_nodes} nodes are dead", "ray status on the head says which")
    if state.actors:
        yield ok("ray", f"{says}; {state.actors} actors of service {service!r} run there")
    elif free < shards:
        yield fail("ray", f"{says}; {shards} shards want one each", "more nodes, fewer shards, or end other jobs")
    else:
        yield ok("ray", says)
