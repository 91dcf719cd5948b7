"""A one-shard service in this process, no port: what `ps.connect("inproc:")` starts."""

from __future__ import annotations

import itertools

from prometheus_client import CollectorRegistry

from ps.config import ServiceConfig
from ps.server.compiling import compile_kernels
from ps.server.handlers.service import ShardService
from ps.server.shard_server import dispatcher
from ps.server.watch.metrics import RpcMetrics
from ps.shard import Shard
from ps.storage.budget.aside import fitted
from ps.wire import inproc
from ps.wire.routing import Routing, ShardInfo, new_epoch

_numbers = itertools.count(1)


def start(config: ServiceConfig | None = None) -> str:
    """Starts a shard, registers it and returns its address. It lives as long as the process.

    The first one on a machine compiles the kernels, and says so.
    """
    compile_kernels()
    config = fitted(config or ServiceConfig())
    address = f"{inproc.PREFIX}{next(_numbers)}"
    shard = Shard(0, config)
    routing = Routing.even(new_epoch(), [ShardInfo(0, address)], coordinator=address)
    service = ShardService(shard, routing, config)
    inproc.register(address, dispatcher(service, RpcMetrics(CollectorRegistry()), config))
    return address
