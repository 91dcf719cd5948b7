"""Rows as they arrive: where each shard's stream belongs in the result, checked on arrival."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.array_like import ArrayLike
from ps.arrays import Flags, Rows
from ps.client.batch import Batch
from ps.client.table_batch import TableBatch
from ps.errors import DimensionMismatch, InternalError, InvalidArgument, LengthMismatch
from ps.kernels.rows.bags import add_at
from ps.kernels.rows.rows import place
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, encodings
from ps.wire.formats import TableFormat


@dataclass(frozen=True)
class TableRows:
    """The result of a pull for one table, in the order and the shape of the ids, duplicates included."""

    rows: ArrayLike
    """float32 [*ids.shape, dim]; for a table with bags the sums, float32 [B, dim]."""
    exists: ArrayLike
    """bool [*ids.shape]: which ids have a row."""
    important: ArrayLike | None
    """bool [*ids.shape]: which rows are among the most important of their table on their shard; None: not asked."""

    @classmethod
    def of(cls, table: TableBatch, rows_UD: Rows, exists_U: Flags | None, important_U: Flags | None) -> TableRows:
        """Returns the rows pulled for the unique ids in the caller's order."""
        exists = None if exists_U is None else table.expand_flags(exists_U)
        return cls(table.expand(rows_UD), exists, None if important_U is None else table.expand_flags(important_U))


class Pulled:
    """Rows of a batch, table by table, in the order of its unique ids. Each shard's part may arrive on its thread."""

    def __init__(self, batch: Batch, formats: Sequence[TableFormat], with_exists: bool) -> None:
        self.batch = batch
        self.rows = [np.empty((t.sent, t.config.dim), np.float32) for t in batch.tables]
        self._parts: dict[int, list[Rows]] = {}
        """By shard and table, where the sums of bags from that shard are put; for a table without bags, `rows`."""
        self.exists = [_flags(t, with_exists) for t in batch.tables]
        """Which ids have a row; None: not asked."""
        self.important = [_flags(t, form.share is not None) for t, form in zip(batch.tables, formats, strict=True)]
        """Which rows are among the most important of their shard; None: not asked."""
        self.versions: dict[int, int] = {}
        """Each shard's version at the read."""

    def receive(self, shard: int, chunks: Iterator[bytes]) -> pb.PullHead:
        """Takes one shard's whole answer and returns its head."""
        first = next(chunks, None)
        if first is None:
            raise InternalError("the shard's answer ended before its first message")
        head = codec.split(pb.PullChunk, first)[0].head
        self._take_head(shard, head)
        writer = _RowWriter(self._places(shard))
        for chunk in chunks:
            writer.add(chunk)
        writer.finish()
        self.versions[shard] = head.version
        return head

    def add_up(self) -> None:
        """Adds the shards' sums of tables with bags, in the order of the shards. Call it when all have answered."""
        for number, (table, rows_BD) in enumerate(zip(self.batch.tables, self.rows, strict=True)):
            if table.bags is not None:
                rows_BD[:] = 0
                for shard in sorted(self._parts):
                    add_at(self._parts[shard][number], table.shard_bags[shard].bags_R, rows_BD)

    def _places(self, shard: int) -> list[_Place]:
        """Returns where a shard's stream belongs in the result, table by table."""
        self._parts[shard], places = [], []
        for table, rows_UD in zip(self.batch.tables, self.rows, strict=True):
            where, order_N, part_ND = table.split.of(shard), table.split.order_N, rows_UD
            if table.bags is not None:
                where, order_N = slice(0, len(table.shard_bags[shard])), None
                part_ND = np.empty((where.stop, table.config.dim), np.float32)
            self._parts[shard].append(part_ND)
            places.append(_Place(table.config.name, part_ND, where, order_N))
        return places

    def _take_head(self, shard: int, head: pb.PullHead) -> None:
        if len(head.tables) != len(self.batch.tables):
            raise InternalError(f"the shard answered for {len(head.tables)} tables of {len(self.batch.tables)}")
        asked = zip(self.batch.tables, self.exists, self.important, head.tables, strict=True)
        for table, exists_U, important_U, answer in asked:
            if answer.dim != table.config.dim:
                raise DimensionMismatch(
                    f"table {table.config.name!r} had dim {table.config.dim} and has {answer.dim} now: it was dropped "
                    "and created again; client.tables() learns the new one"
                )
            for flags_U, sent in ((exists_U, answer.exists), (important_U, answer.important)):
                if flags_U is not None:
                    put_flags(flags_U, table.positions(shard), sent)


def _flags(table: TableBatch, asked: bool) -> Flags | None:
    return np.empty(len(table.unique_U), np.bool_) if asked else None


def put_flags(flags_U: Flags, where: slice | npt.NDArray[np.int64], encoded: bytes) -> None:
    """Puts one shard's flags where its ids are; raises InternalError for another number of flags."""
    try:
        flags_U[where] = codec.decode_flags(encoded, len(flags_U[where]))
    except LengthMismatch as error:
        raise InternalError(f"the shard's answer cannot be read: {error}") from error


@dataclass(frozen=True)
class _Place:
    """Where one table's rows of one shard's stream belong: at these positions, or at those that `order_N` has there."""

    table: str
    rows_ND: Rows
    where: slice
    order_N: npt.NDArray[np.int64] | None


class _RowWriter:
    """Puts the rows of one shard's stream where they belong, as they arrive."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = places
        self._table = self._done = 0

    def add(self, chunk: bytes) -> None:
        """Takes one message of the stream."""
        head, payload = codec.split(pb.PullChunk, chunk)
        for part in head.parts:
            payload = self._add(part, payload)
        if len(payload):
            raise InternalError(f"the shard sent {len(payload)} bytes that it did not announce")

    def finish(self) -> None:
        """Raises InternalError unless every row has come."""
        self._skip_done()
        if self._table < len(self._places):
            raise InternalError("the shard sent fewer rows than were asked for")

    def _add(self, part: pb.PulledPart, payload: memoryview) -> memoryview:
        """Takes the rows of a part from the payload, and returns the rest of the payload."""
        self._skip_done()
        if self._table == len(self._places):
            raise InternalError("the shard sent more rows than were asked for")
        to = self._places[self._table]
        if part.rows > to.where.stop - to.where.start - self._done:
            raise InternalError(f"the shard sent more rows of table {to.table!r} than were asked for")
        missing, seen_N = part.rows, np.zeros(part.rows if len(part.blocks) > 1 else 0, np.bool_)
        for block in part.blocks:
            rows_R, block_RD = _decoded(payload[: block.bytes], block.encoding, part.rows, to.rows_ND.shape[1])
            payload = payload[block.bytes :]
            missing -= len(block_RD)
            if len(seen_N):
                seen_N[slice(None) if rows_R is None else rows_R] = True
            self._put(rows_R, block_RD)
        if missing or not seen_N.all():
            raise InternalError(f"the shard's blocks of table {to.table!r} have not each row once")
        self._done += part.rows
        return payload

    def _put(self, rows_R: npt.NDArray[np.int64] | None, block_RD: Rows) -> None:
        """Puts rows into the result. rows_R: their positions, counted from the first row that is not there yet; None:
        the next ones."""
        to = self._places[self._table]
        start, order_N = to.where.start + self._done, to.order_N
        next_ones = slice(start, start + len(block_RD))
        if order_N is not None:
            place(block_RD, order_N[next_ones if rows_R is None else start + rows_R], to.rows_ND)
        elif rows_R is not None:
            place(block_RD, start + rows_R, to.rows_ND)
        else:
            to.rows_ND[next_ones] = block_RD

    def _skip_done(self) -> None:
        while self._table < len(self._places):
            where = self._places[self._table].where
            if self._done < where.stop - where.start:
                return
            self._table, self._done = self._table + 1, 0


def _decoded(data: memoryview, encoding: int, n_rows: int, dim: int) -> tuple[npt.NDArray[np.int64] | None, Rows]:
    try:
        return encodings.decode(data, encoding, n_rows, dim)
    except InvalidArgument as error:
        raise InternalError(f"the shard's answer cannot be read: {error}") from error
