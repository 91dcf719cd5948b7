"""A service in this process, without a port, which `ps.connect("inproc:")` and `ps.connect("inproc:shards=4")`
start."""

from __future__ import annotations

import itertools
from contextlib import ExitStack

from prometheus_client import CollectorRegistry

from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.durability.origin import Origin
from ps.durability.recovery import come_back
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.checkpoints.serving import ShardCheckpoints
from ps.server.compiling import compile_kernels
from ps.server.gate.dispatch import Dispatcher
from ps.server.handlers.service import ShardService
from ps.server.shard_server import dispatcher
from ps.server.unpacking import WIRE
from ps.server.watch.metrics import RpcMetrics
from ps.shard import Shard
from ps.storage.budget.aside import fitted
from ps.wire import inproc
from ps.wire.routing import UNKNOWN, Routing, ShardInfo, new_epoch

_numbers = itertools.count(1)


class Named:
    """A dispatcher that this process reaches under a name, in place of a gRPC server on a port."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.address = f"{inproc.PREFIX}{next(_numbers)}"
        inproc.register(self.address, dispatcher)

    def set_serving(self, serving: bool) -> None:
        """Does nothing: nobody probes the health of a service in their own process."""

    def stop(self) -> None:
        """Does nothing: the service lives as long as the process."""


def start(config: ServiceConfig | None = None, shards: int = 1) -> str:
    """Starts a service and returns its address. It lives as long as the process.

    One shard is its own coordinator. With a log, the service that a process of before had goes on: a log is one
    process's at a time. The first start on a machine compiles the kernels, and says so. Raises ConfigError for the log
    of another number of shards, LogCorrupt and DiskError.
    """
    asked = config or ServiceConfig()
    config = fitted(asked)
    compile_kernels()
    made: list[Shard] = []
    with ExitStack() as undo:
        backs = []
        for number in range(shards):
            made.append(Shard(number, config))
            undo.callback(made[-1].close)
            backs.append(come_back(made[-1], asked, WIRE, Origin(shards)))
        undo.pop_all()
    services = [ShardService(shard, UNKNOWN, config) for shard in made]
    named = [Named(_dispatcher(service, config, alone=shards == 1)) for service in services]
    epochs = [0 if back is None else back.origin.origin.epoch for back in backs]
    infos = [
        ShardInfo(number, one.address, incarnation=new_epoch(SYSTEM_CLOCK), came_back_at=shard.version, epoch=epoch)
        for number, (one, shard, epoch) in enumerate(zip(named, made, epochs, strict=True))
    ]

    def tell(routing: Routing) -> None:
        for service, back in zip(services, backs, strict=True):
            if back is not None:
                back.origin.keep(routing.epoch)
            service.routing = routing

    if shards == 1:
        epoch = epochs[0] or new_epoch(SYSTEM_CLOCK)
        tell(Routing.even(epoch, infos, coordinator=named[0].address))
        return named[0].address
    unwatched = config.having(watching={"metrics": False, "discovery_path": None})
    coordinator = Coordinator(unwatched, listen=Named)
    coordinator.assemble(infos, tell)
    return coordinator.address


def _dispatcher(service: ShardService, config: ServiceConfig, alone: bool) -> Dispatcher:
    checkpoints = ShardCheckpoints(service, config, SYSTEM_CLOCK, alone)
    return dispatcher(service, RpcMetrics(CollectorRegistry()), config, checkpoints)
