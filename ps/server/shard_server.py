"""A shard with its server: what a Ray actor, `ps.connect("inproc:")` and the tests start."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from ps.config import ServiceConfig
from ps.kernels import warm_up
from ps.server.dispatch import Dispatcher, Handler
from ps.server.metrics import MetricsServer, RpcMetrics
from ps.server.server import GrpcServer
from ps.server.service import ShardService
from ps.shard import Shard
from ps.wire import methods
from ps.wire.methods import Method
from ps.wire.routing import Routing, ShardInfo


class ShardServer:
    """One shard on one port. Alone it is a whole service; in a cluster the coordinator hands it a routing table."""

    def __init__(self, shard_id: int = 0, config: ServiceConfig | None = None) -> None:
        config = config or ServiceConfig()
        warm_up()  # the first request must not wait for a compiler
        registry = CollectorRegistry()
        self.shard = Shard(shard_id, config)
        self.service = ShardService(self.shard, Routing.even(0, [ShardInfo(shard_id, "")]), config)
        self.dispatcher = dispatcher(self.service, RpcMetrics(registry), config)
        self._grpc = GrpcServer(self.dispatcher, config)
        self._metrics = MetricsServer(self.shard, registry, config.host) if config.metrics else None
        self.address = self._grpc.address
        self.metrics_address = self._metrics.address if self._metrics else ""
        self.set_routing(Routing.even(1, [self.info], coordinator=self.address))

    @property
    def info(self) -> ShardInfo:
        """Where this shard is."""
        return ShardInfo(self.shard.shard_id, self.address, self.metrics_address)

    def set_routing(self, routing: Routing) -> None:
        """Requests routed by any other epoch are refused from now on."""
        self.service.routing = routing

    def mark_state_lost(self, reason: str) -> None:
        """Every data call answers StateLost from now on."""
        self.service.state_lost = reason
        self._grpc.set_serving(False)

    def stop(self) -> None:
        """Drains, then frees everything."""
        self._grpc.stop()
        if self._metrics:
            self._metrics.close()
        self.shard.close()

    def __enter__(self) -> ShardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def dispatcher(service: ShardService, metrics: RpcMetrics, config: ServiceConfig) -> Dispatcher:
    """The handlers of a shard's RPCs."""
    handlers: dict[Method, Handler] = {
        methods.PREPARE: service.prepare,
        methods.PULL: service.pull,
        methods.PUSH: service.push,
        methods.WRITE: service.write,
        methods.REMOVE: service.remove,
        methods.EXPORT: service.export,
        methods.DESCRIBE: service.describe,
        methods.CREATE_TABLE: service.create_table,
        methods.DROP_TABLE: service.drop_table,
        methods.STATS: service.stats,
    }
    return Dispatcher(handlers, metrics, config.max_requests)
