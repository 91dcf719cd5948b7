"""The Ray actors: a coordinator and the shards, found by name in a namespace.

Ray restarts an actor whose process dies. A coordinator rebuilds itself from the shards. A shard has lost its rows: it
comes back refusing pulls and pushes with StateLost, so that no trainer goes on with rows that silently start again from
their initial values.

Several may die at the same moment, so none waits for another before it listens: an actor that comes back listens at
once, and finds the others from a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from ps.cluster.coordinator.coordinator import Coordinator
from ps.cluster.coordinator.handshake import keep_trying
from ps.config import ServiceConfig
from ps.errors import Unavailable
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.shard_server import ShardReport, ShardServer
from ps.server.watch import logs, tracing
from ps.wire.routing import Routing, ShardInfo

NAMESPACE = "embedding-ps"
AUTO_HOST = "auto"

CALL_TIMEOUT_S = 5.0
"""How long one actor waits for another's answer before it asks again; about the time that Ray takes to restart an
actor."""
TELL_TIMEOUT_S = 30.0
BIND_PATIENCE_S = 15.0
BIND_PAUSE_S = 0.2

STATE_LOST = (
    "shard {} was restarted and its rows are gone: stop training, restart the service (psctl down, psctl up) "
    "and load your last export"
)

log = logging.getLogger(__name__)


def coordinator_name(service: str) -> str:
    """Returns the name of the coordinator's actor."""
    return f"{service}/coordinator"


def shard_name(service: str, shard_id: int) -> str:
    """Returns the name of a shard's actor."""
    return f"{service}/shard-{shard_id}"


def resolve_host(config: ServiceConfig) -> ServiceConfig:
    """Replaces the host "auto" by the address of this process's node. An actor calls it, since the driver cannot know
    an actor's node."""
    if config.network.host != AUTO_HOST:
        return config
    return config.having(network={"host": ray.util.get_node_ip_address()})


def _be_seen(config: ServiceConfig, labels: Mapping[str, str]) -> None:
    """Sets how this process, which does nothing else, writes its log and whether it traces."""
    logs.configure(config.watching.log_format, labels)
    if config.watching.tracing:
        tracing.instrument(tracing.exporter(labels))


class CoordinatorActor:
    """Runs the coordinator."""

    def __init__(self, service: str, shards: int, config: ServiceConfig, port: int) -> None:
        _be_seen(config, {"service": service, "role": "coordinator"})
        self._service = service
        self._shards = shards
        self._stopped = threading.Event()
        self._telling = threading.Lock()
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        patience_s = BIND_PATIENCE_S if restarted else 0.0
        self._coordinator = _listen(resolve_host(config), port, service, patience_s)
        if restarted:
            keep_trying(
                f"{coordinator_name(service)} asks the shards who they are", self._adopt, self._stopped, SYSTEM_CLOCK
            )

    def address(self) -> str:
        """Returns the address to which clients connect."""
        return self._coordinator.address

    def assemble(self, shards: Sequence[ShardInfo]) -> Routing:
        """Makes a service of the shards, all of which are up: they are told the routing table, then clients are."""
        return self._coordinator.assemble(shards, self._tell_and_wait)

    def restarted(self, shard: ShardInfo) -> None:
        """Notes that a shard came back, when the shard says so, and tells all shards. Raises Unavailable if the shard
        should try again."""
        self._coordinator.replace_shard(shard)
        self._tell()

    def routing(self) -> Routing:
        """Returns the routing table as clients see it."""
        return self._coordinator.routing

    def stop(self) -> None:
        """Drains the coordinator."""
        self._stopped.set()
        self._coordinator.stop()

    def _adopt(self) -> None:
        asked = [handle.report.remote() for handle in self._handles()]
        ray.wait(asked, num_returns=len(asked), timeout=CALL_TIMEOUT_S)
        reports: list[ShardReport] = []
        for answer in asked:
            with suppress(RayError):  # it has died, or has not answered in time
                reports.append(ray.get(answer, timeout=0))
        self._coordinator.adopt(reports, self._shards, self._tell_and_wait)
        self._tell()

    def _tell(self) -> None:
        """Tells the shards the newest routing table, without waiting for them. Epoch and partitions are those that the
        shards have, or have lost with their rows; addresses and states are for clients that ask a shard instead of the
        coordinator."""
        with self._telling:
            routing = self._coordinator.routing
            for handle in self._handles():
                handle.set_routing.remote(routing)

    def _tell_and_wait(self, routing: Routing) -> None:
        with self._telling:
            ray.get([handle.set_routing.remote(routing) for handle in self._handles()], timeout=TELL_TIMEOUT_S)

    def _handles(self) -> list[Any]:
        return [ray.get_actor(shard_name(self._service, i), namespace=NAMESPACE) for i in range(self._shards)]


class ShardActor:
    """Runs one shard's server."""

    def __init__(self, service: str, shard_id: int, config: ServiceConfig) -> None:
        _be_seen(config, {"service": service, "role": "shard", "shard": str(shard_id)})
        self._service = service
        self._stopped = threading.Event()
        restarted = ray.get_runtime_context().was_current_actor_reconstructed
        reason = STATE_LOST.format(shard_id) if restarted else None
        self._server = ShardServer(shard_id, resolve_host(config), alone=False, state_lost=reason)
        if restarted:
            keep_trying(
                f"{shard_name(service, shard_id)} tells that it is back", self._announce, self._stopped, SYSTEM_CLOCK
            )

    def info(self) -> ShardInfo:
        """Returns where the shard listens and what state it is in."""
        return self._server.info

    def report(self) -> ShardReport:
        """Returns what a coordinator that was restarted must know."""
        return self._server.report

    def set_routing(self, routing: Routing) -> None:
        """Takes the routing table from the coordinator."""
        self._server.set_routing(routing)

    def stop(self) -> None:
        """Drains the shard."""
        self._stopped.set()
        self._server.stop()

    def _announce(self) -> None:
        coordinator = ray.get_actor(coordinator_name(self._service), namespace=NAMESPACE)
        ray.get(coordinator.restarted.remote(self._server.info), timeout=CALL_TIMEOUT_S)


def _listen(config: ServiceConfig, port: int, service: str, patience_s: float) -> Coordinator:
    """Starts the coordinator on its port, where clients look for it. A restarted one waits a while for a port that is
    taken, then listens on any other: clients that know a shard learn of it there."""
    deadline = SYSTEM_CLOCK.monotonic() + patience_s
    while True:
        try:
            return Coordinator(config, port, service)
        except Unavailable as error:  # it cannot bind
            if not patience_s:
                raise
            if SYSTEM_CLOCK.monotonic() > deadline:
                log.error("port %d: %s: the coordinator listens on another one", port, error)
                return Coordinator(config, service=service)
            SYSTEM_CLOCK.sleep(BIND_PAUSE_S)
