"""A shard with its server, which a Ray actor, `ps.connect("inproc:")` and the tests start."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from ps.config import ServiceConfig, TableConfig
from ps.durability.origin import Origin
from ps.durability.recovery import come_back
from ps.errors import PsError, Unavailable
from ps.kernels import warm_up
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.files import Files
from ps.server.checkpoints.serving import ShardCheckpoints
from ps.server.compiling import compile_kernels
from ps.server.gate.dispatch import Dispatcher, Handler
from ps.server.handlers.control import Control
from ps.server.handlers.reads import Reads
from ps.server.handlers.service import ShardService
from ps.server.handlers.writes import Writes
from ps.server.progress import Progress
from ps.server.server import GrpcServer
from ps.server.unpacking import WIRE
from ps.server.watch.checkpoints import PartCollector, ServiceCheckpointCollector
from ps.server.watch.metrics import RpcMetrics, ShardCollector
from ps.server.watch.scrapes import MetricsServer
from ps.shard import Shard
from ps.shard.writes.log import Log
from ps.storage.budget.aside import fitted
from ps.storage.budget.budget import RamBudget
from ps.wire import methods
from ps.wire.allocator import KEEP_BYTES, keep_freed_memory
from ps.wire.methods import Method
from ps.wire.routing import UNKNOWN, Routing, ShardInfo, new_epoch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardReport:
    """A shard's report to a coordinator that was restarted."""

    info: ShardInfo
    routing: Routing
    """The routing table that the shard got last; UNKNOWN if it never got one."""
    tables: tuple[TableConfig, ...]


class ShardServer:
    """One shard on one port. With `alone` it is a whole service; otherwise it answers Describe with Unavailable until a
    coordinator gives it a routing table. state_lost: why the shard never serves rows."""

    def __init__(
        self,
        shard_id: int = 0,
        config: ServiceConfig | None = None,
        *,
        alone: bool = True,
        state_lost: str | None = None,
        history: Log | None = None,
        clock: Clock = SYSTEM_CLOCK,
        files: Files | None = None,
        origin: Origin | None = None,
        must_come_back: str | None = None,
    ) -> None:
        """`history`: where writes are logged before they are applied; None: nowhere. `files`: of the log and of
        checkpoints; None: those of the operating system. `origin`: the service that the shard is of, where it has a
        log; by default one of its own. `must_come_back`: why its state is lost where neither log nor checkpoint is
        found; None: it may be new."""
        budget = RamBudget(config or ServiceConfig())
        keep_freed_memory(min(budget.aside.allocator, KEEP_BYTES))  # before there are threads
        config = config or ServiceConfig()
        compile_kernels()
        warm_up()  # the first request must not wait for a compiler, nor for loading what it made
        registry = CollectorRegistry()
        self.shard = Shard(shard_id, config, clock, history=history)
        with ExitStack() as undo:
            undo.callback(self.shard.close)  # whoever tries again, on another port say, finds disk and log unlocked
            self._recovered = None
            if state_lost is None:
                self._recovered = come_back(self.shard, config, WIRE, origin or Origin(1), files, clock)
            if self._recovered is not None and self._recovered.lost:
                state_lost = must_come_back
            self._epoch = 0 if self._recovered is None else self._recovered.origin.origin.epoch
            self._incarnation, self._came_back_at = new_epoch(clock), self.shard.version
            self.service = ShardService(self.shard, self._before(), fitted(config), state_lost)
            self.checkpoints = ShardCheckpoints(self.service, config, clock, alone, files)
            undo.callback(self.checkpoints.stop)
            self.dispatcher = dispatcher(self.service, RpcMetrics(registry), self.service.config, self.checkpoints)
            self.shard.budget.bodies.when_short = self.dispatcher.calls.make_room  # who is silent may hold some of it
            self._grpc = GrpcServer(self.dispatcher, self.service.config, clock)
            undo.callback(self._grpc.stop)
            registry.register(ShardCollector(self.shard, config, lambda: self.service.state_lost))
            registry.register(PartCollector(self.checkpoints.parts))
            if alone:
                registry.register(ServiceCheckpointCollector(self.checkpoints.service.figures))
            self._metrics = MetricsServer(registry, config.network.host, clock) if config.watching.metrics else None
            undo.pop_all()
        self._stopped = False
        self.address = self._grpc.address
        self.metrics_address = self._metrics.address if self._metrics else ""
        if state_lost is not None:
            self._grpc.set_serving(False)
        self.shard.commit.when_poisoned = lambda: self._grpc.set_serving(False)
        self.shard.commit.log.when_failed = lambda: self._grpc.set_serving(False)
        if self.shard.commit.log.failed is not None:
            self._grpc.set_serving(False)
        self.shard.watch.started()
        if alone:
            epoch = self._epoch or new_epoch(clock)
            self.set_routing(Routing.even(epoch, [self.info], coordinator=self.address))

    def _before(self) -> Routing:
        """Returns the routing table until one is told: clients of before go on with the epoch that the log knows."""
        return replace(UNKNOWN, epoch=self._epoch) if self._epoch else UNKNOWN

    @property
    def info(self) -> ShardInfo:
        """The shard's address and state."""
        return ShardInfo(
            self.shard.shard_id,
            self.address,
            self.metrics_address,
            self._state,
            self._incarnation,
            self._came_back_at,
            self._epoch,
        )

    @property
    def _state(self) -> str:
        if self.service.state_lost is not None:
            return "STATE_LOST"
        if self.shard.poisoned is not None:
            return "POISONED"
        return "SERVING" if self.shard.commit.log.failed is None else "LOG_FAILED"

    @property
    def report(self) -> ShardReport:
        """Everything that a coordinator needs to know of the shard."""
        tables = tuple(table.config for table in list(self.shard.tables.values()))
        return ShardReport(self.info, self.service.routing, tables)

    def set_routing(self, routing: Routing) -> None:
        """Takes a routing table: requests routed by any other epoch are refused from now on. Where there is a log it
        has the epoch. Raises DiskError."""
        if self._recovered is not None and self.service.state_lost is None:  # whoever comes next has lost it, too
            self._recovered.origin.keep(routing.epoch)
        self.service.routing = routing

    def stop(self) -> None:
        """Drains, then frees everything."""
        with suppress(Unavailable):  # stopped before
            self.shard.rounds.end()  # they would wait for as long as the drain may take
        self.checkpoints.stop()
        self._grpc.stop()
        if self._metrics:
            self._metrics.close()
        self._leave()
        self.shard.close()

    def _leave(self) -> None:
        """Writes what the next start begins from, if there is a log. Without it the start takes longer."""
        if self._recovered is None or self._stopped or self._state != "SERVING" or self.service.closed is not None:
            return
        self._stopped = True
        try:
            version = self._recovered.leave(self.shard)
        except (PsError, OSError) as error:
            log.warning("%s: the next start carries out the log: %s", self._recovered.folder.path, error)
        else:
            log.info("%s: version %d is left for the next start", self._recovered.folder.path, version)

    def __enter__(self) -> ShardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def dispatcher(
    service: ShardService, metrics: RpcMetrics, config: ServiceConfig, checkpoints: ShardCheckpoints
) -> Dispatcher:
    """Returns the handlers of a shard's RPCs."""
    reads, writes, control = Reads(service), Writes(service), Control(service, metrics, checkpoints.parts)
    handlers: dict[Method, Handler] = {
        methods.PREPARE: reads.prepare,
        methods.FORGET: reads.forget,
        methods.PULL: reads.pull,
        methods.PUSH: writes.push,
        methods.WRITE: writes.write,
        methods.REMOVE: writes.remove,
        methods.REPORT_IMPORTANCE: writes.report_importance,
        methods.EXPORT: reads.export,
        methods.DESCRIBE: control.describe,
        methods.CREATE_TABLE: control.create_table,
        methods.DROP_TABLE: control.drop_table,
        methods.SET_OPTIMIZER: control.set_optimizer,
        methods.STATS: control.stats,
        methods.ADVANCE: Progress().advance,
        **checkpoints.handlers,
    }
    return Dispatcher(handlers, metrics, config.limits.max_requests)
