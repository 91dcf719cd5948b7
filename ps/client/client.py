"""The client SDK.

    client = ps.connect("127.0.0.1:50051")
    client.create_table(ps.TableConfig(name="user", dim=64), exist_ok=True)
    step = client.prepare({"user": ids})
    rows = step.pull()["user"]
    step.push({"user": grads})

Threads: a client may be used by many. Processes: not across a fork. Every blocking call takes `timeout_s`, any positive
number, `inf` for as long as it takes; without it the client's `timeout_s` holds. A signal that interrupts a write, as
Ctrl-C does, leaves it to end by itself.
"""

from __future__ import annotations

import importlib
import itertools
import secrets
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from ps.client import reports
from ps.client.arrays import ArrayLike
from ps.client.batch import Batch, make_batch
from ps.client.bound import UNKNOWN_VERSIONS, Versions
from ps.client.clock import Clock
from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline, retry
from ps.client.connection.transport import MAX_MESSAGE_BYTES, open_transport
from ps.client.lease import Lease
from ps.client.reads.exchange import Exchange, PullOptions
from ps.client.reads.export import Export
from ps.client.step import Step
from ps.client.writes import evict
from ps.client.writes.evict import Evicted
from ps.client.writes.leaving import GRACE_S
from ps.client.writes.outgoing import Outgoing
from ps.client.writes.push_numbers import PushNumbers
from ps.client.writes.write import Write
from ps.client.writes.writes import Writes
from ps.config import TableConfig
from ps.errors import InvalidArgument
from ps.seconds import seconds
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, inproc, methods
from ps.wire.bags import PooledBags
from ps.wire.formats import Formats, WireDtype
from ps.wire.methods import Method
from ps.wire.routing import Routing

DEFAULT_TIMEOUT_S = 30.0
EXPORT_PAGE_ROWS = 16_384


class Client:
    """One worker's connection to the service."""

    def __init__(
        self,
        connection: Connection,
        *,
        wire_dtype: WireDtype | Mapping[str, WireDtype] = "fp32",
        compress_ids: bool = False,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self.connection = connection
        self.formats = Formats(wire_dtype)
        self.compress_ids = compress_ids
        self.timeout_s = seconds(timeout_s)
        self.worker_id = secrets.randbits(63)
        self.exchange = Exchange(connection, self.worker_id)
        self.writes = Writes(connection, self.worker_id)
        self._steps = itertools.count(1)
        self._sequences = itertools.count(1)
        self._push_numbers = PushNumbers()
        self._abandoned: deque[Lease] = deque()

    # tables

    def create_table(
        self, config: TableConfig, *, exist_ok: bool = False, timeout_s: float | None = None
    ) -> TableConfig:
        """Creates a table on every shard. Raises TableExists unless `exist_ok` and the configuration is the same."""

        def attempt(number: int) -> bytes:
            # A repeat cannot tell its own lost first attempt from a stranger's table: the configurations are compared.
            request = control.CreateTableRequest(config_json=config.to_json(), exist_ok=exist_ok or number > 0)
            return self._coordinator(methods.CREATE_TABLE, request, deadline)

        deadline = self.deadline(timeout_s)
        answer = codec.parse(control.CreateTableResponse, self._retry(attempt, deadline))
        if answer.created:
            self._push_numbers.start_anew(config.name)
        self.connection.tables[config.name] = TableConfig.from_json(answer.config_json)
        return self.connection.tables[config.name]

    def drop_table(self, name: str, *, missing_ok: bool = False, timeout_s: float | None = None) -> bool:
        """Drops a table with all its rows; True if there was one. Raises TableNotFound unless `missing_ok`."""

        def attempt(number: int) -> bytes:
            request = control.DropTableRequest(table=name, missing_ok=missing_ok or number > 0)
            return self._coordinator(methods.DROP_TABLE, request, deadline)

        deadline = self.deadline(timeout_s)
        answer = codec.parse(control.DropTableResponse, self._retry(attempt, deadline))
        self.connection.tables.pop(name, None)
        self._push_numbers.start_anew(name)
        return answer.dropped

    def tables(self, *, timeout_s: float | None = None) -> dict[str, TableConfig]:
        """The service's tables."""
        self.connection.refresh(self.deadline(timeout_s))
        return dict(self.connection.tables)

    # the step protocol

    def prepare(
        self,
        ids: Mapping[str, ArrayLike],
        *,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
    ) -> Step:
        """Names the ids of a step and returns at once; the shards are told in the background.

        ids: per table, int64 of any shape, duplicates allowed. counts: per table, occurrences of each id, when the ids
        are unique already. Call it for the next batches while this one trains.

        bags: of some tables, whose ids must be unique: their shards sum the rows of each bag, so that the step pulls
        float32 [B, dim] and pushes the gradients of those, B of them however many ids they have. What is then applied
        to a row is the sum of the gradients of its bags, as often as it is in each, as without `bags`.
        """
        self._forget_abandoned()
        deadline = self.deadline(None)
        batch = self._batch(ids, deadline, counts, bags)
        number = next(self._steps)
        prepared = {
            shard: self.connection.submit(partial(self.exchange.prepare, batch, number, shard, deadline), hint=True)
            for shard in batch.shards
        }
        lease = Lease(number, batch.routing, prepared, partial(self._forget, number, batch.routing))
        step = Step(self, batch, lease)
        weakref.finalize(step, self._abandoned.append, lease).atexit = False
        return step

    def step(
        self,
        ids: Mapping[str, ArrayLike],
        *,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
        versions: Versions = UNKNOWN_VERSIONS,
    ) -> Step:
        """A step that no shard is told of ahead: its ids go along with its pull and its push. For gradients that were
        put together from several steps; versions: those that they were computed from (`Step.versions`, `oldest`)."""
        batch = self._batch(ids, self.deadline(None), counts, bags)
        return Step(self, batch, Lease(0, batch.routing, {}, lambda shard: None), versions)

    def pull(
        self,
        table: str,
        ids: ArrayLike,
        *,
        train: bool = True,
        return_exists: bool = False,
        timeout_s: float | None = None,
    ) -> Any:
        """Rows of ids: float32 [*ids.shape, dim], numpy or torch as the ids are.

        An id without a row reads as its initial value; a pull creates nothing. With `return_exists` also bool
        [*ids.shape]. `train=False` says that no gradient will follow; as pulls count nothing either, it reads the same.
        """
        deadline = self.deadline(timeout_s)
        batch = self._batch({table: ids}, deadline)
        pulled = self.exchange.pull(batch, PullOptions([self.formats.of(table)], return_exists), deadline)
        rows = batch.tables[0].expand(pulled.rows[0])
        exists_U = pulled.exists[0]
        return rows if exists_U is None else (rows, batch.tables[0].expand_flags(exists_U))

    def push(
        self,
        table: str,
        ids: ArrayLike,
        grads: ArrayLike,
        *,
        positives: ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> None:
        """Applies gradients, float [*ids.shape, dim]; duplicates are summed. Creates the rows that do not exist, as far
        as the table's `admission` lets them in.

        positives: how often each id occurs in positive samples, for `importance`; duplicates are summed.
        """
        deadline = self.deadline(timeout_s)
        batch = self._batch({table: ids}, deadline)
        part = Outgoing.of(batch.tables[0], grads, self.formats.of(table).by_ids())
        counted = batch.positives({} if positives is None else {table: positives})
        self.writes.push(self.new_push(batch), [part], deadline, positives=counted)

    prefetch = prepare
    """The name of `prepare` in HugeCTR and dynamicemb."""
    lookup = pull
    """The name of `pull` in TFRA and Monolith."""
    apply_gradients = push
    """The name of `push` in TFRA and Monolith."""

    # several trainers

    def clock(self, group: str, *, rank: int, ranks: int, max_staleness: int) -> Clock:
        """This trainer's clock among the `ranks` of a group: `clock.advance(steps)` before a step waits while the
        slowest is more than `max_staleness` steps behind. Name the group of each run anew."""
        return Clock(self, group, rank, ranks, max_staleness)

    # explicit writes

    def upsert(
        self, table: str, ids: ArrayLike, rows: ArrayLike, *, timeout_s: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """Sets values, creating rows; optimizer state of existing rows stays. Ids unique. True where a row existed."""
        return self._write(pb.WRITE_MODE_UPSERT, table, ids, rows, timeout_s)

    def assign(
        self, table: str, ids: ArrayLike, rows: ArrayLike, *, timeout_s: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """Sets the values of rows that exist, leaves the others out. Ids unique. True where a row existed."""
        return self._write(pb.WRITE_MODE_ASSIGN, table, ids, rows, timeout_s)

    def remove(self, table: str, ids: ArrayLike, *, timeout_s: float | None = None) -> npt.NDArray[np.bool_]:
        """Drops rows: they read as initial values again. True where a row existed."""
        deadline = self.deadline(timeout_s)
        batch = self._batch({table: ids}, deadline)
        flags_U = self.writes.remove(self.new_write(batch), deadline)
        return cast("npt.NDArray[np.bool_]", batch.tables[0].expand_flags(flags_U))

    def report_importance(
        self, table: str, ids: ArrayLike, scores: ArrayLike, *, timeout_s: float | None = None
    ) -> npt.NDArray[np.bool_]:
        """Adds scores, float [*ids.shape], finite and not negative, to the importance of rows that exist; those of
        duplicates are summed. It counts as a use of the rows. True where a row existed. InvalidArgument unless the
        table has a weight for it (`Importance.external`)."""
        deadline = self.deadline(timeout_s)
        batch = self._batch({table: ids}, deadline)
        scores_U = batch.tables[0].scores(scores)
        flags_U = self.writes.report_importance(self.new_write(batch), scores_U, deadline)
        return cast("npt.NDArray[np.bool_]", batch.tables[0].expand_flags(flags_U))

    # reading everything

    def export(
        self, table: str, *, page_rows: int = EXPORT_PAGE_ROWS, timeout_s: float | None = None
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Pages of (ids [n], rows [n, dim], scores [n]): every row once that exists from start to end. Scores are
        importance: today the frequency. `page_rows` is the most of a page, of wide rows there are fewer. `timeout_s` is
        per page."""
        self.connection.table(table, self.deadline(timeout_s))
        export = Export(self.connection, self.worker_id, table, page_rows)
        for page in export.pages(lambda: self.deadline(timeout_s)):
            yield page.ids_N, page.rows_ND, page.scores_N

    def evict(
        self,
        table: str,
        *,
        fraction: float | None = None,
        rows: int | None = None,
        return_rows: bool = False,
        timeout_s: float | None = None,
    ) -> Evicted:
        """Drops the least important rows of a table, on whatever tier: a `fraction` of them, or so many `rows`, of each
        shard its share. A row that is pushed while they are being chosen stays, so there may be fewer.

        `return_rows`: hands back the values too. All that is handed back is held in memory here; `timeout_s` is per
        page and per removal. Raises InvalidArgument unless just one of `fraction`, in [0, 1], and `rows` is given.
        """
        evict.check(fraction, rows)
        deadline = self.deadline(timeout_s)
        config = self.connection.table(table, deadline)
        sizes = reports.sizes(table, reports.shard_stats(self.connection, deadline))
        least = evict.shares(sizes, fraction, rows)
        export = Export(self.connection, self.worker_id, table, EXPORT_PAGE_ROWS, least)
        found = evict.least_of_shards(export.pages(lambda: self.deadline(timeout_s)), least, config, return_rows)
        gone_N = np.zeros(len(found.ids_N), np.bool_)
        for start in range(0, len(found.ids_N), evict.REMOVE_ROWS):
            part = slice(start, start + evict.REMOVE_ROWS)
            one = self.deadline(timeout_s)
            batch = self._batch({table: found.ids_N[part]}, one)
            gone_N[part] = self.writes.remove(self.new_write(batch), one, found.statistics_N2[part])
        gone = found.chosen(gone_N)
        return Evicted(gone.ids_N, gone.rows_ND, gone.scores_N)

    def size(self, table: str, *, timeout_s: float | None = None) -> int:
        """Rows that exist. Raises StateLost when a shard has lost some."""
        deadline = self.deadline(timeout_s)
        self.connection.table(table, deadline)
        return sum(reports.sizes(table, reports.shard_stats(self.connection, deadline)))

    def memory_usage(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Bytes by table, tier and purpose over all shards, and what the shards hold beside the tables. Raises
        StateLost when a shard has lost its rows."""
        return reports.memory_usage(reports.shard_stats(self.connection, self.deadline(timeout_s)))

    def stats(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """What every shard counts, and this client's own traffic in bytes by method, and of each by kind (ids,
        flags, rows, gradients, headers: `ps.wire.kinds`). A shard that has lost its rows says why in `state_lost`;
        elsewhere that is None."""
        return {
            "shards": reports.shard_stats(self.connection, self.deadline(timeout_s)),
            "client": self.connection.traffic.report(),
        }

    def close(self) -> None:
        """Waits for background calls, ends the connections; the service lives on. Later calls raise InvalidArgument.

        A process that ends without it waits for its writes for 3 s, then ends their calls, says on stderr which are not
        known to be applied, and has the exit status 120; the same for writes whose errors nobody has heard.
        """
        with suppress(InvalidArgument):  # closed before, or in a forked child
            self._forget_abandoned()
        self.connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Closes; after an error it waits for what is under way as long as the end of a process does."""
        self.connection.close(None if error is None else GRACE_S)

    # for Step and Clock

    def control(self, method: Method, request: Message, deadline: Deadline) -> bytes:
        """A call of the coordinator's that may be repeated, until the deadline."""
        return self._retry(lambda _: self._coordinator(method, request, deadline), deadline)

    def new_write(self, batch: Batch) -> Write:
        """A write with a sequence that no other of this worker has. Make it when it is about to be sent: the shards'
        ledgers look back only so far."""
        return Write(next(self._sequences), batch)

    def new_push(self, batch: Batch, in_round: bool = False) -> Write:
        """A write that is a push of all tables of the batch."""
        numbers = None if in_round else self._push_numbers.next([table.config.name for table in batch.tables])
        return Write(next(self._sequences), batch, numbers)

    def deadline(self, timeout_s: float | None) -> Deadline:
        """From now on."""
        return Deadline(self.timeout_s if timeout_s is None else timeout_s)

    def _forget(self, number: int, routing: Routing, shard: int) -> None:
        """Tells a shard, in the background, to forget a step."""
        tell = partial(self.exchange.forget, number, shard, routing, self.deadline(None))
        self.connection.submit(tell, hint=True)

    def _forget_abandoned(self) -> None:
        """Forgets the steps that nobody can push any more. Finalizers may run anywhere, inside a lock too: so they only
        append."""
        while self._abandoned:
            self._abandoned.popleft().forget()

    def _batch(
        self,
        ids: Mapping[str, ArrayLike],
        deadline: Deadline,
        counts: Mapping[str, ArrayLike] | None = None,
        bags: Mapping[str, PooledBags] | None = None,
    ) -> Batch:
        if not ids:
            raise InvalidArgument("no tables given: pass {table: ids}")
        if counts is not None and set(counts) != set(ids):
            raise InvalidArgument(f"counts for tables {sorted(counts)}, ids for {sorted(ids)}")
        if bags is not None and not set(bags) <= set(ids):
            raise InvalidArgument(f"bags for tables {sorted(bags)}, ids for {sorted(ids)}")
        configs = {name: self.connection.table(name, deadline) for name in ids}
        return make_batch(ids, configs, self.connection.routing, counts, self.compress_ids, bags)

    def _write(
        self, mode: pb.WriteMode, table: str, ids: ArrayLike, rows: ArrayLike, timeout_s: float | None
    ) -> npt.NDArray[np.bool_]:
        deadline = self.deadline(timeout_s)
        batch = self._batch({table: ids}, deadline)
        if batch.tables[0].inverse_N is not None:
            raise InvalidArgument(f"table {table!r}: an id is given twice; which of its rows should stay?")
        values_UD = batch.tables[0].values(rows)
        flags_U = self.writes.set_rows(mode, self.new_write(batch), values_UD, deadline)
        return cast("npt.NDArray[np.bool_]", batch.tables[0].expand_flags(flags_U))

    def _retry(self, attempt: Callable[[int], bytes], deadline: Deadline) -> bytes:
        return retry(attempt, deadline, lambda: self.connection.refresh(deadline))

    def _coordinator(self, method: Method, request: Message, deadline: Deadline) -> bytes:
        routing = self.connection.routing
        return self.connection.unary(routing.coordinator or routing.shards[0].address, method, request, deadline)


def connect(
    address: str,
    *,
    wire_dtype: WireDtype | Mapping[str, WireDtype] = "fp32",
    compress_ids: bool = False,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
) -> Client:
    """Connects to a service.

    address: "host:port" of the coordinator or of any shard; "inproc:" starts a private one-shard service in this
    process, for tests and notebooks.
    wire_dtype: "fp32"; "fp16" or "int8" for a half or a quarter of the bytes of rows and gradients, rounded to nearest;
    `ps.ByImportance`, which rounds only rows that matter less; or {table: one of these}, tables not named being exact.
    compress_ids: send ids sorted, as the gaps between them: 1 to 3 bytes each instead of 8 where they are dense, at the
    price of sorting them, which pays on links of less than about 1 Gbit/s. What is dense beyond about 400,000 ids in
    one message goes as it is all the same: a shard unpacks no more of so few bytes.
    timeout_s: the deadline of calls that are not given their own. max_message_bytes: the largest single message, both
    ways; as the service's own setting of that name. Raises Unavailable.
    """
    seconds(timeout_s)  # before anything is connected
    if max_message_bytes < 1:
        raise InvalidArgument(f"max_message_bytes={max_message_bytes!r}: give a positive number of bytes")
    if address == inproc.PREFIX:
        # Loaded by name: a trainer that connects over the network never loads the service.
        address = importlib.import_module("ps.server.local").start()
    connection = Connection(address, partial(open_transport, max_message_bytes=max_message_bytes))
    return Client(connection, wire_dtype=wire_dtype, compress_ids=compress_ids, timeout_s=timeout_s)
