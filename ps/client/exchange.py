"""The step protocol as seen by a client: a batch's messages to every shard that has a part of it, concurrently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ps.client.batch import Rows, TableBatch, has_ids, id_set
from ps.client.connection import Connection
from ps.client.retry import Deadline
from ps.errors import DimensionMismatch, InternalError, InvalidArgument, PsError, StaleRouting, StepNotFound
from ps.kernels.rows import all_finite, place
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods

T = TypeVar("T")


@dataclass
class Pulled:
    """Rows of a batch, table by table, in the order of its unique ids."""

    rows: list[Rows]
    exists: list[npt.NDArray[np.bool_]]
    versions: dict[int, int] = field(default_factory=dict)
    """Each shard's version at the read."""


@dataclass(frozen=True)
class PullOptions:
    """How to pull."""

    dtype: str = "fp32"
    return_exists: bool = False


class Exchange:
    """One worker's calls. Threads: any."""

    def __init__(self, connection: Connection, worker_id: int) -> None:
        self.connection = connection
        self.worker_id = worker_id

    def prepare(self, batch: list[TableBatch], step: int, shard: int, deadline: Deadline) -> bool:
        """Sends one shard its part. False if it was refused: a hint may fail, the pull will carry the ids."""
        request = pb.PrepareRequest(header=self.header(), step=step, ids=id_set(batch, shard))
        try:
            address = self.connection.routing.shards[shard].address
            self.connection.unary(address, methods.PREPARE, request.SerializeToString(), deadline)
        except PsError:
            return False
        return True

    def pull(
        self, batch: list[TableBatch], options: PullOptions, deadline: Deadline, step: int, prepared: set[int]
    ) -> Pulled:
        """Rows from every shard. Shards in `prepared` are asked by step, the others are sent the ids."""

        def run() -> Pulled:
            pulled = Pulled(
                [np.empty((len(t.unique_U), t.config.dim), np.float32) for t in batch],
                [np.empty(len(t.unique_U), np.bool_) if options.return_exists else _NO_FLAGS for t in batch],
            )

            def one(shard: int) -> Callable[[], None]:
                return lambda: self._by_step_or_ids(
                    shard,
                    step if shard in prepared else 0,
                    deadline,
                    lambda address, by_step: self._pull_shard(
                        batch, shard, by_step, options, address, deadline, pulled
                    ),
                )

            self.connection.each([one(shard) for shard in self._shards(batch)])
            return pulled

        return self.rerouted(run, batch, prepared)

    def push(
        self,
        batch: list[TableBatch],
        grads: Sequence[Rows],
        sequence: int,
        deadline: Deadline,
        dtype: str = "fp32",
        step: int = 0,
        prepared: set[int] | None = None,
        versions: dict[int, int] | None = None,
    ) -> dict[int, pb.PushResponse]:
        """Gradients, in the order of the unique ids, to every shard. Under one sequence, however often it is tried."""
        asked_by_step = prepared if prepared is not None else set()

        def run() -> dict[int, pb.PushResponse]:
            grouped = [table.by_shard(part) for table, part in zip(batch, grads, strict=True)]

            def one(shard: int) -> Callable[[], tuple[int, pb.PushResponse]]:
                def call(address: str, by_step: int) -> tuple[int, pb.PushResponse]:
                    head = self._push_head(batch, shard, by_step, sequence, dtype)
                    head.pulled_version = (versions or {}).get(shard, 0)
                    blocks = [rows[table.split.of(shard)] for table, rows in zip(batch, grouped, strict=True)]
                    answer = self.connection.stream_in(
                        address, methods.PUSH, _body(pb.PushChunk(head=head), blocks, dtype), deadline
                    )
                    return shard, codec.parse(pb.PushResponse, answer)

                return lambda: self._by_step_or_ids(shard, step if shard in asked_by_step else 0, deadline, call)

            return dict(self.connection.each([one(shard) for shard in self._shards(batch)]))

        return self.rerouted(run, batch, asked_by_step)

    def write(
        self, mode: pb.WriteMode, table: TableBatch, values_UD: Rows, sequence: int, deadline: Deadline
    ) -> npt.NDArray[np.bool_]:
        """Sets values; True where a row existed."""
        grouped_UD = table.by_shard(values_UD)

        def call(address: str, shard: int) -> bytes:
            where = table.split.of(shard)
            shape = pb.PushedTable(table=table.config.name, rows=where.stop - where.start, dim=table.config.dim)
            head = pb.WriteHead(header=self.header(), sequence=sequence, mode=mode, ids=table.part(shard), shape=shape)
            answer = self.connection.stream_in(
                address, methods.WRITE, _body(pb.WriteChunk(head=head), [grouped_UD[where]], "fp32"), deadline
            )
            return codec.parse(pb.WriteResponse, answer).existed

        return self._flags(table, call, deadline)

    def remove(self, table: TableBatch, sequence: int, deadline: Deadline) -> npt.NDArray[np.bool_]:
        """Drops rows; True where a row existed."""

        def call(address: str, shard: int) -> bytes:
            request = pb.RemoveRequest(header=self.header(), sequence=sequence, ids=table.part(shard))
            answer = self.connection.unary(address, methods.REMOVE, request.SerializeToString(), deadline)
            return codec.parse(pb.RemoveResponse, answer).existed

        return self._flags(table, call, deadline)

    def header(self) -> pb.Header:
        """What every data call says first."""
        return pb.Header(routing_epoch=self.connection.routing.epoch, worker_id=self.worker_id)

    def _flags(self, table: TableBatch, call: Callable[[str, int], bytes], deadline: Deadline) -> npt.NDArray[np.bool_]:
        """Flags of every shard, in the order of the unique ids."""

        def run() -> npt.NDArray[np.bool_]:
            flags_U = np.zeros(len(table.unique_U), np.bool_)

            def one(shard: int) -> Callable[[], None]:
                def fill() -> None:
                    answer = self.connection.on_shard(shard, lambda address, _: call(address, shard), deadline)
                    flags_U[_positions(table, shard)] = codec.decode_flags(answer)

                return fill

            self.connection.each([one(shard) for shard in self._shards([table])])
            return flags_U

        return self.rerouted(run, [table], set())

    def _pull_shard(
        self,
        batch: list[TableBatch],
        shard: int,
        by_step: int,
        options: PullOptions,
        address: str,
        deadline: Deadline,
        pulled: Pulled,
    ) -> None:
        enum, dtype = codec.wire_dtype(options.dtype)
        request = pb.PullRequest(header=self.header(), dtype=enum, return_exists=options.return_exists)
        if by_step:
            request.step.step = by_step
        else:
            request.ids.CopyFrom(id_set(batch, shard))
        chunks = self.connection.stream_out(address, methods.PULL, request.SerializeToString(), deadline)
        head = codec.split(pb.PullChunk, next(chunks))[0].head
        writer = _RowWriter(batch, shard, pulled, head)
        for chunk in chunks:
            rows = codec.decode_rows(codec.payload_of(chunk), dtype)
            if options.dtype == "fp16" and not all_finite(rows):
                raise InvalidArgument(
                    "a row holds a value that fp16 cannot (beyond 65504): pull with wire_dtype='fp32'"
                )
            writer.add(rows)
        writer.finish()
        pulled.versions[shard] = head.version

    def _push_head(self, batch: list[TableBatch], shard: int, by_step: int, sequence: int, dtype: str) -> pb.PushHead:
        head = pb.PushHead(header=self.header(), sequence=sequence, dtype=codec.wire_dtype(dtype)[0])
        ids = id_set(batch, shard)
        if by_step:
            head.step.step = by_step
            head.ids_digest = codec.digest_ids((part.table, part.ids, part.counts) for part in ids.tables)
        else:
            head.ids.CopyFrom(ids)
        for table in batch:
            where = table.split.of(shard)
            head.tables.add(table=table.config.name, rows=where.stop - where.start, dim=table.config.dim)
        return head

    def _by_step_or_ids(self, shard: int, step: int, deadline: Deadline, call: Callable[[str, int], T]) -> T:
        """call(address, step), and with step 0, which means by ids, when the shard does not know the step."""
        if step:
            try:
                return self.connection.on_shard(shard, lambda address, _: call(address, step), deadline)
            except StepNotFound:
                pass
        return self.connection.on_shard(shard, lambda address, _: call(address, 0), deadline)

    def rerouted(self, run: Callable[[], T], batch: list[TableBatch], prepared: set[int]) -> T:
        """Runs; when the routing has changed, splits by the new one and runs again, without the old step handles."""
        for _ in range(3):
            try:
                return run()
            except StaleRouting:
                self.connection.refresh()
                prepared.clear()
                for table in batch:
                    table.reroute(self.connection.routing)
        return run()

    def _shards(self, batch: list[TableBatch]) -> list[int]:
        return [shard for shard in range(len(batch[0].split.starts) - 1) if has_ids(batch, shard)]


_NO_FLAGS = np.empty(0, np.bool_)


def _positions(table: TableBatch, shard: int) -> slice | npt.NDArray[np.int64]:
    """Where a shard's ids are among the unique ids."""
    where = table.split.of(shard)
    return where if table.split.order_N is None else table.split.order_N[where]


def _body(head: pb.PushChunk | pb.WriteChunk, blocks: list[Rows], dtype: str) -> Iterator[bytes]:
    yield head.SerializeToString()
    for payload in codec.pieces(blocks, codec.wire_dtype(dtype)[1]):
        yield codec.payload_message(payload)


class _RowWriter:
    """Puts the rows of one shard's stream where they belong, as they arrive."""

    def __init__(self, batch: list[TableBatch], shard: int, pulled: Pulled, head: pb.PullHead) -> None:
        self._tables = [(table, table.split.of(shard), rows) for table, rows in zip(batch, pulled.rows, strict=True)]
        self._table = self._done = 0
        for table, exists_U, answer in zip(batch, pulled.exists, head.tables, strict=True):
            if answer.dim != table.config.dim:
                raise DimensionMismatch(
                    f"table {table.config.name!r} had dim {table.config.dim} and has {answer.dim} now: it was dropped "
                    "and made anew; client.tables() learns the new one"
                )
            if len(exists_U):
                exists_U[_positions(table, shard)] = codec.decode_flags(answer.exists)

    def add(self, flat: Rows) -> None:
        """Takes a run of whole rows, over as many tables as it covers."""
        while len(flat):
            self._skip_done()
            table, where, rows_UD = self._tables[self._table]
            dim = table.config.dim
            block_ND = flat[: (where.stop - where.start - self._done) * dim].reshape(-1, dim)
            start = where.start + self._done
            if table.split.order_N is None:
                rows_UD[start : start + len(block_ND)] = block_ND
            else:
                place(block_ND, table.split.order_N[start : start + len(block_ND)], rows_UD)
            self._done += len(block_ND)
            flat = flat[block_ND.size :]

    def finish(self) -> None:
        """Raises unless every row has come."""
        self._skip_done()
        if self._table < len(self._tables):
            raise InternalError("the shard sent fewer rows than were asked for")

    def _skip_done(self) -> None:
        while self._table < len(self._tables):
            where = self._tables[self._table][1]
            if self._done < where.stop - where.start:
                return
            self._table, self._done = self._table + 1, 0
