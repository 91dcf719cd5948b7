"""A service in this process, without a port, which `ps.connect("inproc:")` and `ps.connect("inproc:shards=4")`
start."""

from __future__ import annotations

import itertools

from prometheus_client import CollectorRegistry

from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.errors import ConfigError
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.checkpoints.serving import ShardCheckpoints
from ps.server.compiling import compile_kernels
from ps.server.gate.dispatch import Dispatcher
from ps.server.handlers.service import ShardService
from ps.server.shard_server import dispatcher
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

    One shard is its own coordinator. The first start on a machine compiles the kernels, and says so. Raises ConfigError
    for a configuration with a log: nothing would read it.
    """
    config = fitted(config or ServiceConfig())
    if config.log.mode != "off":
        raise ConfigError(
            f"log.mode is {config.log.mode!r}: a service in this process cannot take up a log, so it may have none; "
            "leave log.mode off, or start a ps.server.shard_server.ShardServer"
        )
    compile_kernels()
    services = [ShardService(Shard(number, config), UNKNOWN, config) for number in range(shards)]
    named = [Named(_dispatcher(service, config, alone=shards == 1)) for service in services]
    infos = [ShardInfo(number, one.address) for number, one in enumerate(named)]

    def tell(routing: Routing) -> None:
        for service in services:
            service.routing = routing

    if shards == 1:
        tell(Routing.even(new_epoch(SYSTEM_CLOCK), infos, coordinator=named[0].address))
        return named[0].address
    unwatched = config.having(watching={"metrics": False, "discovery_path": None})
    coordinator = Coordinator(unwatched, listen=Named)
    coordinator.assemble(infos, tell)
    return coordinator.address


def _dispatcher(service: ShardService, config: ServiceConfig, alone: bool) -> Dispatcher:
    checkpoints = ShardCheckpoints(service, config, SYSTEM_CLOCK, alone)
    return dispatcher(service, RpcMetrics(CollectorRegistry()), config, checkpoints)
