"""The Ray actors: a coordinator and the shards, found by name in a namespace.

Ray restarts an actor whose process dies. A coordinator rebuilds itself from the shards. A shard with a log comes back
from it by itself. One without has lost its rows: it comes back refusing pulls and pushes with StateLost, so that no
trainer goes on with rows that silently start again from their initial values.

A shard comes up on a thread, since its log may be long: whoever asks it meanwhile is told to come again.

Several may die at the same moment, so none waits for another before it listens: an actor that comes back listens at
once, and finds the others from a thread of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from ps.cluster.coordinator.coordinator import Coordinator
from ps.cluster.coordinator.handshake import keep_trying
from ps.config import ServiceConfig
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.origin import Origin
from ps.errors import DataLoss, PsError, Unavailable
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
POLL_S = 2.0
"""How long a shard that comes up or ends lets others wait for an answer."""
BIND_PATIENCE_S = 15.0
BIND_PAUSE_S = 0.2

STATE_LOST = (
    "shard {} was restarted and its rows are gone: stop training, restart the service (psctl down, psctl up) "
    "and load {}"
)
NO_CHECKPOINT = "your last export"

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

    def restarted(self, shard: ShardInfo) -> Routing:
        """Notes that a shard came back, when the shard says so, and tells all shards; returns the routing table. Raises
        Unavailable if the shard should try again."""
        routing = self._coordinator.replace_shard(shard)
        self._tell()
        return routing

    def routing(self) -> Routing:
        """Returns the routing table as clients see it."""
        return self._coordinator.routing

    def stop(self) -> bool:
        """Drains the coordinator; returns True."""
        self._stopped.set()
        self._coordinator.stop()
        return True

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

    def __init__(self, service: str, shard_id: int, shards: int, config: ServiceConfig) -> None:
        _be_seen(config, {"service": service, "role": "shard", "shard": str(shard_id)})
        self._service, self._shard_id = service, shard_id
        self._origin, self._config = Origin(shards, service), resolve_host(config)
        self._stopped = threading.Event()
        self._restarted = ray.get_runtime_context().was_current_actor_reconstructed
        self._work = ThreadPoolExecutor(1, thread_name_prefix="shard")
        self._coming = self._work.submit(self._come_up)
        self._stopping: Future[None] | None = None
        if self._restarted:
            keep_trying(
                f"{shard_name(service, shard_id)} tells that it is back", self._announce, self._stopped, SYSTEM_CLOCK
            )

    def info(self) -> ShardInfo | None:
        """Returns where the shard listens and what state it is in; None while it is coming up, after a while. Raises
        what keeps it from coming up."""
        wait([self._coming], timeout=POLL_S)
        return self._coming.result().info if self._coming.done() else None

    def report(self) -> ShardReport:
        """Returns what a coordinator that was restarted must know. Raises Unavailable while it is coming up."""
        return self._server.report

    def set_routing(self, routing: Routing) -> None:
        """Takes the routing table from the coordinator; does nothing while it is coming up, since it asks then."""
        if self._coming.done():
            self._server.set_routing(routing)

    def stop(self) -> bool:
        """Drains the shard, and has it leave what the next start begins from; returns False, after a while, if that is
        not done yet: then it is called again."""
        self._stopped.set()
        if self._stopping is None:
            self._stopping = self._work.submit(lambda: self._coming.result().stop())
        wait([self._stopping], timeout=POLL_S)
        return self._stopping.done()

    @property
    def _server(self) -> ShardServer:
        if not self._coming.done():
            raise Unavailable(f"shard {self._shard_id} is coming back: its process's log says how far it is")
        return self._coming.result()

    def _come_up(self) -> ShardServer:
        logs = self._config.log.mode != "off"
        lost = STATE_LOST.format(self._shard_id, self._way_out()) if self._restarted else None
        try:
            return self._serve(None if logs else lost, lost)
        except DataLoss as error:
            if not self._restarted:
                raise
            log.critical("%s: %s", shard_name(self._service, self._shard_id), error)
            return self._serve(f"shard {self._shard_id} was restarted and cannot come back: {error}", None)

    def _serve(self, state_lost: str | None, must_come_back: str | None) -> ShardServer:
        return ShardServer(
            self._shard_id,
            self._config,
            alone=False,
            state_lost=state_lost,
            origin=self._origin,
            must_come_back=must_come_back,
        )

    def _way_out(self) -> str:
        """Returns what to load when rows are gone: the newest checkpoint, if there is one."""
        path = self._config.checkpoint.path
        if path is None:
            return NO_CHECKPOINT
        try:
            newest = Checkpoints(path, service=self._service).newest()
        except PsError as error:
            return f"your newest checkpoint ({path} cannot be read: {error})"
        return NO_CHECKPOINT if newest is None else f"your newest checkpoint (psctl restore {path}/{newest.name})"

    def _announce(self) -> None:
        coordinator = ray.get_actor(coordinator_name(self._service), namespace=NAMESPACE)
        routing = ray.get(coordinator.restarted.remote(self._server.info), timeout=TELL_TIMEOUT_S)
        self._server.set_routing(routing)


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
