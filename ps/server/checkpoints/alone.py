"""A shard that is a service by itself, as whoever makes its checkpoints sees it: the calls are made here."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from google.protobuf.message import Message

from ps.config import TableConfig
from ps.errors import InvalidArgument, Unavailable
from ps.server.handlers.service import ShardService
from ps.wire.methods import Method
from ps.wire.routing import Routing


class AloneShard:
    """The one shard of a service (`Shards`). Its cut is one moment, so nothing has to stand still for it."""

    def __init__(self, service: ShardService, handlers: Mapping[Method, Callable[[bytes], Any]]) -> None:
        """handlers: of its calls that concern checkpoints."""
        self._service, self._handlers = service, handlers

    def routing(self) -> Routing:
        """Returns the routing table. Raises Unavailable while there is none, InvalidArgument if there are others."""
        routing = self._service.routing
        if not routing.shards:
            raise Unavailable("this shard has no routing table yet: the service is still starting")
        if len(routing.shards) > 1:
            raise InvalidArgument(
                f"this is one of {len(routing.shards)} shards: ask the coordinator, {routing.coordinator}"
            )
        return routing

    def tables(self) -> Sequence[TableConfig]:
        """Returns the tables that exist."""
        return [table.config for table in list(self._service.shard.tables.values())]

    def learn(self, tables: Sequence[TableConfig]) -> None:
        """Does nothing: the shard has them."""

    def create_table(self, config: TableConfig) -> None:
        """Creates a table."""
        self._service.shard.create_table(config)

    def drop_table(self, name: str) -> None:
        """Drops a table."""
        self._service.shard.drop_table(name, missing_ok=True)

    def unchanging(self) -> AbstractContextManager[object]:
        """Returns a context that does nothing."""
        return nullcontext()

    def call(self, position: int, method: Method, request: Message, timeout_s: float) -> bytes:
        """Makes a call."""
        answer: bytes = self._handlers[method](request.SerializeToString())
        return answer

    def stream(self, position: int, method: Method, request: Message, timeout_s: float) -> Generator[bytes]:
        """Makes a call."""
        yield from self._handlers[method](request.SerializeToString())
