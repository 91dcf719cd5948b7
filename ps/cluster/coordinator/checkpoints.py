"""All shards of a service, as its checkpoints see them: the coordinator calls them over its connections."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager

from google.protobuf.message import Message

from ps.cluster.coordinator.shards import ShardCalls
from ps.cluster.coordinator.tables import ServiceTables
from ps.config import TableConfig
from ps.v1 import control_pb2 as pb
from ps.wire.methods import Method
from ps.wire.routing import Routing


class AllShards:
    """The shards and the tables of a service (`ps.server.checkpoints.shards.Shards`). Threads: any."""

    def __init__(self, calls: ShardCalls, tables: ServiceTables) -> None:
        self._calls, self._tables = calls, tables
        self.routing: Callable[[], Routing] = calls.routing

    def tables(self) -> Sequence[TableConfig]:
        """Returns the tables that exist."""
        return self._tables.all()

    def learn(self, tables: Sequence[TableConfig]) -> None:
        """Notes tables that the shards have now."""
        self._tables.learn(tables)

    def create_table(self, config: TableConfig) -> None:
        """Creates a table on all shards, or on none."""
        self._tables.create(pb.CreateTableRequest(config_json=config.to_json()).SerializeToString())

    def drop_table(self, name: str) -> None:
        """Drops a table from all shards that have it."""
        self._tables.drop(pb.DropTableRequest(table=name, missing_ok=True).SerializeToString())

    def unchanging(self) -> AbstractContextManager[object]:
        """Returns a context in which no table is created, changed or dropped."""
        return self._tables.unchanging()

    def call(self, position: int, method: Method, request: Message, timeout_s: float) -> bytes:
        """Calls one shard, once."""
        return self._calls.transport(position).unary(method, request.SerializeToString(), timeout_s)

    def stream(self, position: int, method: Method, request: Message, timeout_s: float) -> Generator[bytes]:
        """Calls one shard, once; yields what it answers. The call ends when the generator is closed."""
        yield from self._calls.transport(position).stream_out(method, request.SerializeToString(), timeout_s)
