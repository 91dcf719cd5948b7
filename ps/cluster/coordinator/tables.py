"""The tables of a service: the coordinator creates, changes and drops them on all shards."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager

from google.protobuf.message import Message

from ps.client.connection.retry import Deadline, retry
from ps.client.writes.write import changed_nothing
from ps.cluster.coordinator.shards import ShardCalls
from ps.config import TableConfig
from ps.errors import PsError, ResourceExhausted, TableExists, TableNotFound
from ps.quoting import shown, some_of
from ps.runtime.clock import Clock
from ps.runtime.entropy import Entropy
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods, requests
from ps.wire.methods import Method
from ps.wire.routing import ShardInfo

FAN_OUT_TIMEOUT_S = 20.0
UNDO_TIMEOUT_S = 5.0

log = logging.getLogger(__name__)


class ServiceTables:
    """Knows which tables exist, and changes them by calls to every shard. Threads: any."""

    def __init__(self, shards: ShardCalls, clock: Clock, entropy: Entropy) -> None:
        self._shards, self._routing = shards, shards.routing
        self._clock = clock
        self._entropy = entropy
        self._changing = threading.Lock()  # one change at a time: all shards see the changes in one order
        self._guard = threading.Lock()  # guards the dict below; never held during a call
        self._tables: dict[str, TableConfig] = {}

    def all(self) -> list[TableConfig]:
        """Returns the tables that exist."""
        with self._guard:
            return list(self._tables.values())

    def learn(self, tables: Iterable[TableConfig]) -> None:
        """Takes over tables that shards have already."""
        with self._guard:
            self._tables |= {table.name: table for table in tables}

    def settle(self, shards: Sequence[ShardInfo], came_back: Sequence[ShardInfo]) -> None:
        """Learns the tables of shards, which have a routing table, and creates them on those that came back without
        one: a table that was being created or dropped when they ended is there afterwards, and so is one that is newer
        than the checkpoint that a shard went back to. Raises Unavailable where a shard does not answer."""
        with self._changing:
            for shard in shards:
                answer = self._ask(shard, methods.DESCRIBE, pb.DescribeRequest())
                configs = codec.parse(pb.DescribeResponse, answer).table_configs_json
                self._settle_one(shard, list(map(TableConfig.from_json, configs)))
            for shard in came_back:
                for config in self.all():
                    self._complete(shard, config)

    def _settle_one(self, shard: ShardInfo, configs: Sequence[TableConfig]) -> None:
        known = {config.name: config for config in self.all()}
        for config in configs:
            if known.get(config.name, config) != config:
                log.warning(
                    "table %r is configured otherwise on shard %d than on those before: a change of its optimizer did "
                    "not reach all, set it again",
                    config.name,
                    shard.shard_id,
                )
        self.learn(config for config in configs if config.name not in known)

    def _complete(self, shard: ShardInfo, config: TableConfig) -> None:
        request = pb.CreateTableRequest(config_json=config.to_json(), exist_ok=True)
        try:
            answer = codec.parse(pb.CreateTableResponse, self._ask(shard, methods.CREATE_TABLE, request))
        except TableExists:
            return  # it was created otherwise, or its optimizer was changed since
        if answer.created:
            log.warning(
                "table %r was not on shard %d, which came back, and is created there", config.name, shard.shard_id
            )

    def _ask(self, shard: ShardInfo, method: Method, request: Message) -> bytes:
        return self._shards.at(shard.address).unary(method, request.SerializeToString(), FAN_OUT_TIMEOUT_S)

    def unchanging(self) -> AbstractContextManager[object]:
        """Returns a context in which no table is created, changed or dropped."""
        return self._changing

    def create(self, data: bytes) -> bytes:
        """Creates a table on all shards or on none: what a failed call created is dropped again.

        A shard that never answers may have the table all the same; the next create finds it there, and is refused by
        that shard if it asks for another configuration.
        """
        request = requests.control(pb.CreateTableRequest, data)
        config = TableConfig.from_json(request.config_json)
        with self._changing:
            created: list[bool] = []
            try:
                for position in range(len(self._routing().shards)):
                    answer = self._call(position, methods.CREATE_TABLE, request.SerializeToString())
                    created.append(codec.parse(pb.CreateTableResponse, answer).created)
                    # The first shard decides; the others may have the table from an attempt that did not get through.
                    request.exist_ok = True
            except PsError:
                self._undo_create(config.name, [position for position, new in enumerate(created) if new])
                raise
            config = TableConfig.from_json(codec.parse(pb.CreateTableResponse, answer).config_json)
            with self._guard:
                self._tables[config.name] = config
        return pb.CreateTableResponse(config_json=config.to_json(), created=created[0]).SerializeToString()

    def _undo_create(self, table: str, positions: Sequence[int]) -> None:
        request = pb.DropTableRequest(table=table, missing_ok=True).SerializeToString()
        for position in positions:
            try:
                self._call(position, methods.DROP_TABLE, request, UNDO_TIMEOUT_S)
            except PsError as error:
                log.warning("table %r was not created, but stays on shard %d: %s", table, position, error)

    def set_optimizer(self, data: bytes) -> bytes:
        """Changes settings of a table's optimizer on the shards in their order. What they would refuse is refused
        before any of them is asked. Where one fails, those before it have the change and those behind it do not: the
        error says which. The call may be repeated: the shards know it by its sequence."""
        request = requests.control(pb.SetOptimizerRequest, data)
        deadline = Deadline(min(request.wait_ms / 1000 or FAN_OUT_TIMEOUT_S, FAN_OUT_TIMEOUT_S), self._clock)
        with self._changing:
            shards = range(len(self._routing().shards))  # before the tables, which the shards tell it too
            config = self._known(request.table).having_optimizer(request.settings, request.cores)
            for position in shards:
                try:
                    answer = self._call(position, methods.SET_OPTIMIZER, data, deadline.remaining_s())
                except PsError as error:
                    raise _changed_in_part(error, request.table, position) from error
                config = TableConfig.from_json(codec.parse(pb.SetOptimizerResponse, answer).config_json)
            with self._guard:
                self._tables[config.name] = config
        return pb.SetOptimizerResponse(config_json=config.to_json()).SerializeToString()

    def _known(self, name: str) -> TableConfig:
        with self._guard:
            if name not in self._tables:
                raise TableNotFound(f"no table {shown(name)} (there are: {some_of(self._tables)})")
            return self._tables[name]

    def drop(self, data: bytes) -> bytes:
        """Drops a table from every shard that has it, so that a drop which failed halfway can be called again.

        There is no sequence by which a shard could know a repeat: when the answer to a drop is lost and it is sent
        again, the repeat finds no table, and says dropped=False or raises TableNotFound.
        """
        request = requests.control(pb.DropTableRequest, data)
        on_shard = pb.DropTableRequest(table=request.table, missing_ok=True).SerializeToString()
        with self._changing:
            shards = range(len(self._routing().shards))
            answers = [self._call(position, methods.DROP_TABLE, on_shard) for position in shards]
            with self._guard:
                self._tables.pop(request.table, None)
                left = ", ".join(sorted(self._tables)) or "none"
        dropped = any(codec.parse(pb.DropTableResponse, answer).dropped for answer in answers)
        if not dropped and not request.missing_ok:
            raise TableNotFound(f"no table {request.table!r} (there are: {left})")
        return pb.DropTableResponse(dropped=dropped).SerializeToString()

    def _call(self, position: int, method: Method, data: bytes, timeout_s: float = FAN_OUT_TIMEOUT_S) -> bytes:
        """Calls one shard. Its address is looked up before each retry, since it may have come back at another one."""
        deadline = Deadline(timeout_s, self._clock)

        def attempt(_: int) -> bytes:
            return self._shards.transport(position).unary(method, data, deadline.remaining_s())

        return retry(attempt, deadline, self._entropy)


def _changed_in_part(error: PsError, table: str, failed: int) -> PsError:
    """Returns what to tell a caller whose change the shards before the `failed` one have."""
    if not failed and changed_nothing(error):
        return error
    have = [f"on shards {list(range(failed))}"] if failed else []
    have += [] if changed_nothing(error) else [f"perhaps on shard {failed}"]
    told = type(error)(
        f"{error}. The optimizer of table {table!r} was changed {' and '.join(have)}, on no other: set it again, which "
        "changes nothing where it is set"
    )
    if isinstance(error, ResourceExhausted) and isinstance(told, ResourceExhausted):
        told.retry_after_s = error.retry_after_s
    return told
