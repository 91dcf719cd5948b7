"""`ps.launch` starts a service on a Ray cluster: the running one, or a local one that it starts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import ray
from ray.exceptions import GetTimeoutError, RayError

from ps.cluster.ray import actors, joining, ports, starting
from ps.cluster.ray.compiling import Stopwatch, compile_on_nodes
from ps.cluster.ray.deployment import LAUNCH_TIMEOUT_S, Deployment, Launch, Placement
from ps.cluster.ray.quiet import hush_ray
from ps.config import ServiceConfig
from ps.errors import InvalidArgument, PsError, Unavailable
from ps.runtime.clock import SYSTEM_CLOCK
from ps.seconds import seconds
from ps.server.compiling import compile_kernels
from ps.wire.routing import Routing, ShardInfo

log = logging.getLogger(__name__)

PROGRESS_S = 5.0


class Service:
    """A running service. As a context manager it is shut down at the end."""

    def __init__(
        self, name: str, address: str, routing: Routing, owns_ray: bool = False, handles: Sequence[Any] = ()
    ) -> None:
        self.name = name
        self.address = address
        """The coordinator's address, for `ps.connect`."""
        self.routing = routing
        self._owns_ray = owns_ray
        self._handles = handles  # Ray ends an actor that is not detached when the last handle to it is gone

    @property
    def metrics_addresses(self) -> list[str]:
        """host:port of each shard's Prometheus endpoint."""
        return [shard.metrics_address for shard in self.routing.shards]

    def shutdown(self) -> None:
        """Drains and ends the actors, and Ray itself if `launch` started it."""
        if ray.is_initialized():
            stop_actors(self.name)
            if self._owns_ray:
                ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


def launch(
    shards: int = 1,
    *,
    name: str = "default",
    config: ServiceConfig | None = None,
    ray_address: str | None = None,
    port: int = 0,
    placement: Placement | None = None,
    detached: bool = False,
    timeout_s: float = LAUNCH_TIMEOUT_S,
) -> Service:
    """Starts a coordinator and `shards` shard actors.

    Uses the Ray that this process is connected to; else the cluster at `ray_address` or RAY_ADDRESS; else it starts a
    local one, which ends with the service and listens on loopback only. `port` is the coordinator's, 0 for any; when
    Ray restarts the coordinator it comes back on the same one. `placement` says what a shard reserves, and on which
    nodes. `detached` actors outlive this process. On a cluster of several hosts set `network.host` to "auto". Raises
    Unavailable when the cluster has no room for the actors within `timeout_s`. The first launch on a host compiles the
    kernels there, about a minute that is said on stderr and not counted in `timeout_s`.
    """
    if shards < 1:
        raise InvalidArgument(f"shards={shards}: a service needs at least one")
    wanted = Launch(shards=shards, port=port, placement=placement or Placement(), timeout_s=seconds(timeout_s))
    deployment = Deployment(launch=wanted, service=config or ServiceConfig())
    return deploy(deployment, name=name, ray_address=ray_address, detached=detached)


def deploy(
    deployment: Deployment, *, name: str = "default", ray_address: str | None = None, detached: bool = False
) -> Service:
    """Launches what a service file says."""
    hush_ray()
    owns_ray = not joining.join_any(ray_address)
    if owns_ray:
        # Resolved before Ray starts: actors of a Ray on loopback would know only loopback as their address.
        service = actors.resolve_host(deployment.service)
        deployment = deployment.model_copy(update={"service": service})
        ports.check_free(service.network.host, deployment.launch.port)
        compile_kernels()  # here, where the user sees it: this host is the cluster
        joining.start_local(deployment.launch)
    try:
        return _start(name, deployment, detached, owns_ray)
    except BaseException:
        if owns_ray:
            ray.shutdown()
        raise


def stop_actors(name: str, timeout_s: float = 30.0) -> int:
    """Drains and ends a service's actors, and returns how many there were. Those that answer may take as long as they
    need, to write what the next start begins from; one that does not answer for `timeout_s` is ended all the same."""
    handles = find_actors(name)
    for some in (handles[:-1], handles[-1:]):  # the shards side by side, then the coordinator
        _drain(name, some, timeout_s)
        for handle in some:
            ray.kill(handle, no_restart=True)
    starting.release(name)
    return len(handles)


def _drain(name: str, handles: Sequence[Any], timeout_s: float) -> None:
    started = said = SYSTEM_CLOCK.monotonic()
    while handles:
        asked = [(handle, handle.stop.remote()) for handle in handles]
        handles = []
        for handle, answer in asked:
            with suppress(RayError, GetTimeoutError):
                if not ray.get(answer, timeout=timeout_s):
                    handles.append(handle)
        if handles and SYSTEM_CLOCK.monotonic() - said >= PROGRESS_S:
            said = SYSTEM_CLOCK.monotonic()
            log.warning("%s: %d shards still write their rows, after %.0f s", name, len(handles), said - started)


def _infos(name: str, handles: Sequence[Any], clock: Stopwatch, logs: bool) -> list[ShardInfo]:
    """Waits until all shards are up. The time in which they carry out their logs is not counted. Raises what keeps one
    from coming up."""
    found: dict[int, ShardInfo] = {}
    started = said = SYSTEM_CLOCK.monotonic()
    while len(found) < len(handles):
        asked = {at: handle.info.remote() for at, handle in enumerate(handles) if at not in found}
        for at, answer in asked.items():
            if (info := ray.get(answer, timeout=clock.remaining_s())) is not None:
                found[at] = info
        if logs:
            clock.restart()  # all have answered: those that are not up come back from their logs
        if len(found) < len(handles) and SYSTEM_CLOCK.monotonic() - said >= PROGRESS_S:
            said = SYSTEM_CLOCK.monotonic()
            missing = sorted(set(range(len(handles))) - set(found))
            log.warning("%s: shards %s carry out their logs, %.0f s by now", name, missing, said - started)
    return [found[at] for at in range(len(handles))]


def find_actors(name: str) -> list[Any]:
    """Returns handles of a service's actors, shards first: so the coordinator is gone before Ray could restart it for
    one of them."""
    named = ray.util.list_named_actors(all_namespaces=True)
    mine = [a["name"] for a in named if a["namespace"] == actors.NAMESPACE and a["name"].startswith(f"{name}/")]
    return [ray.get_actor(actor, namespace=actors.NAMESPACE) for actor in sorted(mine, reverse=True)]


def _start(name: str, deployment: Deployment, detached: bool, owns_ray: bool) -> Service:
    if find_actors(name):
        raise InvalidArgument(f"a service named {name!r} runs in this Ray cluster already; psctl down ends it")
    starting.release(name)  # a launch that was killed halfway may have left it
    lifetime = "detached" if detached else None
    config, wanted = deployment.service, deployment.launch
    shards, timeout_s = wanted.shards, wanted.timeout_s
    try:
        with ports.chosen(config.network.host, wanted.port) as chosen:
            clock = Stopwatch(timeout_s)
            coordinator = starting.start_coordinator(name, shards, config, chosen, lifetime)
            group = starting.reserve(name, shards, wanted.placement, lifetime)
            if not group.wait(clock.remaining_s()):
                raise GetTimeoutError("no nodes have room for them")
            if not owns_ray:  # on a Ray of our own it was done before
                with clock.paused():
                    compile_on_nodes(group)
            handles = [starting.start_shard(name, i, shards, config, group, lifetime) for i in range(shards)]
            address = ray.get(coordinator.address.remote(), timeout=clock.remaining_s())  # first: a taken port
            infos = _infos(name, handles, clock, config.log.mode != "off")
        routing = ray.get(coordinator.assemble.remote(infos), timeout=clock.remaining_s())
    except (RayError, GetTimeoutError) as error:
        stop_actors(name, timeout_s=1.0)
        if isinstance(cause := getattr(error, "cause", None), PsError):  # what a shard says is wrong with its state
            raise cause from error
        within = f" within {timeout_s:g} s" if isinstance(error, GetTimeoutError) else ""
        raise Unavailable(
            f"{shards} shards of {wanted.placement} did not start{within}; the cluster has "
            f"{joining.all_resources()}: {error}"
        ) from error
    return Service(name, address, routing, owns_ray, [coordinator, *handles])
