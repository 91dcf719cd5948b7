"""The coordinator knows which shard is where and which tables exist. It is a client of the shards and holds no rows.

It does not use Ray: the actor around it (`ps.cluster.ray.actors`) tells it about shards that start and restart. Its
state can be rebuilt from the shards, so its own restart loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from prometheus_client import CollectorRegistry

from ps import __version__
from ps.cluster.coordinator.checkpoints import AllShards
from ps.cluster.coordinator.discovery import Discovery
from ps.cluster.coordinator.metrics import CoordinatorCollector
from ps.cluster.coordinator.shards import ShardCalls
from ps.cluster.coordinator.tables import ServiceTables
from ps.config import ServiceConfig
from ps.errors import StateLost, Unavailable
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.entropy import SYSTEM_ENTROPY, Entropy
from ps.runtime.files import Files
from ps.server.checkpoints.service import ServiceCheckpoints
from ps.server.gate.dispatch import Dispatcher, Handler
from ps.server.progress import Progress
from ps.server.server import GrpcServer
from ps.server.shard_server import ShardReport
from ps.server.watch.checkpoints import ServiceCheckpointCollector
from ps.server.watch.metrics import RpcMetrics
from ps.server.watch.scrapes import MetricsServer
from ps.v1 import control_pb2 as pb
from ps.wire import methods
from ps.wire.methods import Method
from ps.wire.routing import UNKNOWN, Routing, ShardInfo, new_epoch

Tell = Callable[[Routing], object]
"""A function that hands a routing table to the shards and returns when all of them have it."""


class Listening(Protocol):
    """A server that carries calls to the coordinator."""

    address: str

    def set_serving(self, serving: bool) -> None:
        """Sets whether health says that the coordinator can answer."""

    def stop(self) -> None:
        """Ends the server, after the calls in progress."""


class Coordinator:
    """Serves Describe, CreateTable, DropTable, SetOptimizer, Advance, Checkpoint and Restore on its own port. Until it
    knows the shards it answers all but Advance with Unavailable, and its health is NOT_SERVING."""

    def __init__(
        self,
        config: ServiceConfig,
        port: int = 0,
        service: str = "default",
        listen: Callable[[Dispatcher], Listening] | None = None,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Entropy = SYSTEM_ENTROPY,
        files: Files | None = None,
    ) -> None:
        """Starts to listen: on `port`, or as `listen` does. service: the name of the service in metrics and in its
        checkpoints. files: of checkpoints; None: those of the operating system."""
        self._settling = threading.Lock()  # one `assemble` or `adopt` at a time
        self._guard = threading.Lock()  # guards the routing; never held during a call
        self._clock = clock
        self._routing = UNKNOWN
        self._shards = ShardCalls(self._known, config.limits.max_message_bytes)
        self._tables = ServiceTables(self._shards, clock, entropy)
        self.checkpoints = ServiceCheckpoints(AllShards(self._shards, self._tables), config, clock, files, service)
        handlers: dict[Method, Handler] = {
            methods.DESCRIBE: self._describe,
            methods.CREATE_TABLE: self._tables.create,
            methods.DROP_TABLE: self._tables.drop,
            methods.SET_OPTIMIZER: self._tables.set_optimizer,
            methods.ADVANCE: Progress().advance,
            methods.CHECKPOINT: self.checkpoints.checkpoint,
            methods.RESTORE: self.checkpoints.restore,
        }
        registry = CollectorRegistry()
        dispatcher = Dispatcher(handlers, RpcMetrics(registry), config.limits.max_requests)
        self._server: Listening = listen(dispatcher) if listen else GrpcServer(dispatcher, config, clock, port)
        self._server.set_serving(False)
        self.address = self._server.address
        registry.register(CoordinatorCollector(lambda: self.routing, lambda: len(self._tables.all())))
        registry.register(ServiceCheckpointCollector(self.checkpoints.figures))
        self._metrics = MetricsServer(registry, config.network.host, clock) if config.watching.metrics else None
        self.metrics_address = self._metrics.address if self._metrics else ""
        self._discovery = Discovery(config.watching.discovery_path, service) if config.watching.discovery_path else None
        self._publishing = threading.Lock()

    @property
    def routing(self) -> Routing:
        """The routing table that clients are told; UNKNOWN at first. The shards must have it already: they refuse other
        epochs."""
        with self._guard:
            return self._routing

    @routing.setter
    def routing(self, routing: Routing) -> None:
        with self._guard:
            self._routing = routing

    def assemble(self, shards: Sequence[ShardInfo], tell: Tell = lambda _: None) -> Routing:
        """Divides the partitions evenly among the shards when all are up: under the epoch that their logs know, else
        one that no service had before. Tables that they came back with are known from then on, and are completed where
        a shard lacks one. Raises StateLost where some shards came back and another is new."""
        with self._settling:
            return self._deal(shards, tell)

    def adopt(self, reports: Sequence[ShardReport], shards: int, tell: Tell = lambda _: None) -> Routing:
        """Rebuilds the coordinator's state after its restart, from those of the `shards` shards that answer.

        It takes epoch and partitions from the shards, and addresses and states as they are now. A shard that does not
        answer stays as the others know it until `replace_shard`. If all answer and none has a routing table, no rows
        are left either, and a new routing table is made. Raises Unavailable if too few answer to decide that.
        """
        with self._settling:
            if self.routing.shards:
                return self.routing
            known = max((report.routing for report in reports), key=lambda r: r.epoch, default=UNKNOWN)
            if not known.shards:
                if len(reports) < shards:
                    raise Unavailable(f"{len(reports)} of {shards} shards answer, and none knows the routing table")
                return self._deal([report.info for report in reports], tell)
            fresh = {report.info.shard_id: report.info for report in reports}
            infos = tuple(fresh.get(shard.shard_id, shard) for shard in known.shards)
            self._tables.learn(table for report in reports for table in report.tables)
            self._tables.settle([], [report.info for report in reports if report.info.came_back_at])
            self.routing = replace(known, shards=infos, coordinator=self.address)
            self._server.set_serving(True)
            self._publish()
            return self.routing

    def replace_shard(self, shard: ShardInfo) -> Routing:
        """Notes that a shard came back at a new address. Partitions stay where they are, and so does the epoch. Tables
        that a shard lacks which came back at an older version are created there, empty."""
        if shard.came_back_at:
            self._tables.settle([], [shard])
        with self._guard:
            if not self._routing.shards:
                raise Unavailable("the coordinator does not know the shards yet itself")
            shards = tuple(shard if known.shard_id == shard.shard_id else known for known in self._routing.shards)
            self._routing = changed = replace(self._routing, shards=shards)
        self._publish()
        return changed

    def stop(self) -> None:
        """Drains, then closes the connections to the shards."""
        self.checkpoints.stop()
        self._server.stop()
        with self._publishing:
            if self._discovery:
                self._discovery.remove()
                self._discovery = None
        if self._metrics:
            self._metrics.close()
        self._shards.close()

    def _deal(self, shards: Sequence[ShardInfo], tell: Tell) -> Routing:
        _check_all_came_back(shards)
        epoch = max(shard.epoch for shard in shards) or new_epoch(self._clock)  # clients of before go on with it
        routing = Routing.even(epoch, sorted(shards, key=lambda s: s.shard_id), self.address)
        tell(routing)  # before any client can learn of it and come
        if any(shard.came_back_at for shard in shards):
            self._tables.settle(shards, shards)
        self.routing = routing
        self._server.set_serving(True)
        self._publish()
        return routing

    def _publish(self) -> None:
        """Writes the file that tells Prometheus where the metrics are. The newest routing table is always written
        last."""
        with self._publishing:
            if self._discovery:
                self._discovery.write(self.routing, self.metrics_address)

    def _describe(self, data: bytes) -> bytes:
        routing = self._known()
        tables = [config.to_json() for config in self._tables.all()]
        return pb.DescribeResponse(
            routing=routing.to_proto(), table_configs_json=tables, release=__version__
        ).SerializeToString()

    def _known(self) -> Routing:
        routing = self.routing
        if not routing.shards:
            raise Unavailable("the shards are still starting")
        return routing


def _check_all_came_back(shards: Sequence[ShardInfo]) -> None:
    """Raises StateLost where a shard is new and others are not: its rows are gone."""
    new = sorted(shard.shard_id for shard in shards if not shard.epoch and not shard.came_back_at)
    back = sorted(shard.shard_id for shard in shards if shard.came_back_at)
    if new and back:
        raise StateLost(
            f"shards {back} came back with their rows, and shards {new} have no log and no checkpoint: bring back "
            "their folders shard-K of log.path; or start the service with an empty log.path, and psctl restore a "
            "checkpoint"
        )
