"""The coordinator: which shard is where, and which tables exist. It is a client of the shards and holds no rows.

Knows nothing of Ray: the actor around it (`ps.cluster.actors`) tells it about shards that start and restart. What it
knows can be rebuilt from the shards, so its own restart loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from prometheus_client import CollectorRegistry

from ps.client.retry import Deadline, retry
from ps.client.transport import GrpcTransport, Transport
from ps.config import ServiceConfig, TableConfig
from ps.errors import Unavailable
from ps.server.dispatch import Dispatcher, Handler
from ps.server.metrics import RpcMetrics
from ps.server.server import GrpcServer
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.methods import Method
from ps.wire.routing import Routing, ShardInfo

FAN_OUT_TIMEOUT_S = 20.0


class Coordinator:
    """Serves Describe, CreateTable and DropTable on a port of its own."""

    def __init__(self, config: ServiceConfig, port: int = 0) -> None:
        self._lock = threading.Lock()  # one table change at a time: all shards see them in one order
        self._tables: dict[str, TableConfig] = {}
        self._transports: dict[str, Transport] = {}
        self._transports_lock = threading.Lock()
        self._max_message_bytes = config.max_message_bytes
        handlers: dict[Method, Handler] = {
            methods.DESCRIBE: self._describe,
            methods.CREATE_TABLE: self._create_table,
            methods.DROP_TABLE: self._drop_table,
        }
        dispatcher = Dispatcher(handlers, RpcMetrics(CollectorRegistry()), config.max_requests)
        self._grpc = GrpcServer(dispatcher, config, port)
        self.address = self._grpc.address
        self.routing = Routing.even(0, [])

    def assemble(self, shards: Sequence[ShardInfo]) -> Routing:
        """All shards are up: partitions are dealt evenly. Tables that the shards have already are learnt from them."""
        self.routing = Routing.even(1, sorted(shards, key=lambda s: s.shard_id), self.address)
        for shard in self.routing.shards:
            answer = self._call(shard.address, methods.DESCRIBE, pb.DescribeRequest().SerializeToString())
            configs = map(TableConfig.from_json, codec.parse(pb.DescribeResponse, answer).table_configs_json)
            self._tables.update({config.name: config for config in configs})
        return self.routing

    def replace_shard(self, shard: ShardInfo) -> Routing:
        """A shard came back at a new address. Partitions stay where they are, and so does the epoch."""
        shards = tuple(shard if known.shard_id == shard.shard_id else known for known in self.routing.shards)
        self.routing = replace(self.routing, shards=shards)
        return self.routing

    def stop(self) -> None:
        """Drains, then closes the connections to the shards."""
        self._grpc.stop()
        for transport in self._transports.values():
            transport.close()

    def _describe(self, data: bytes) -> bytes:
        if not self.routing.shards:
            raise Unavailable("the shards are still starting")
        tables = [config.to_json() for config in list(self._tables.values())]
        return pb.DescribeResponse(routing=self.routing.to_proto(), table_configs_json=tables).SerializeToString()

    def _create_table(self, data: bytes) -> bytes:
        request = codec.parse(pb.CreateTableRequest, data)
        config = TableConfig.from_json(request.config_json)
        with self._lock:
            answers = []
            for shard in self.routing.shards:
                answers.append(self._call(shard.address, methods.CREATE_TABLE, request.SerializeToString()))
                # The first shard decides; the others may have the table from an attempt that did not get through.
                request.exist_ok = True
            self._tables[config.name] = config
        created = codec.parse(pb.CreateTableResponse, answers[0]).created
        return pb.CreateTableResponse(config_json=config.to_json(), created=created).SerializeToString()

    def _drop_table(self, data: bytes) -> bytes:
        request = codec.parse(pb.DropTableRequest, data)
        with self._lock:
            answers = []
            for shard in self.routing.shards:
                answers.append(self._call(shard.address, methods.DROP_TABLE, request.SerializeToString()))
                request.missing_ok = True
            self._tables.pop(request.table, None)
        dropped = any(codec.parse(pb.DropTableResponse, answer).dropped for answer in answers)
        return pb.DropTableResponse(dropped=dropped).SerializeToString()

    def _call(self, address: str, method: Method, data: bytes) -> bytes:
        with self._transports_lock:
            if address not in self._transports:
                self._transports[address] = GrpcTransport(address, self._max_message_bytes)
            transport = self._transports[address]
        deadline = Deadline(FAN_OUT_TIMEOUT_S)
        return retry(lambda _: transport.unary(method, data, deadline.remaining_s()), deadline)
