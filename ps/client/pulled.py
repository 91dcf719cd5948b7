"""Rows on their way in: where each shard's stream belongs in the result, checked as it arrives."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps.client.batch import Batch, Rows
from ps.errors import DimensionMismatch, InternalError, InvalidArgument
from ps.kernels.rows import all_finite, place
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec

_NO_FLAGS = np.empty(0, np.bool_)


class Pulled:
    """Rows of a batch, table by table, in the order of its unique ids. Each shard's part may arrive on its thread."""

    def __init__(self, batch: Batch, with_exists: bool) -> None:
        self.batch = batch
        self.rows = [np.empty((len(t.unique_U), t.config.dim), np.float32) for t in batch.tables]
        self.exists = [np.empty(len(t.unique_U), np.bool_) if with_exists else _NO_FLAGS for t in batch.tables]
        self.versions: dict[int, int] = {}
        """Each shard's version at the read."""

    def receive(self, shard: int, chunks: Iterator[bytes], dtype: str) -> None:
        """Takes one shard's whole answer."""
        first = next(chunks, None)
        if first is None:
            raise InternalError("the shard's answer ended before its first message")
        head = codec.split(pb.PullChunk, first)[0].head
        self._take_head(shard, head)
        writer = _RowWriter(self, shard)
        for chunk in chunks:
            writer.add(_decode(chunk, dtype))
        writer.finish()
        self.versions[shard] = head.version

    def _take_head(self, shard: int, head: pb.PullHead) -> None:
        if len(head.tables) != len(self.batch.tables):
            raise InternalError(f"the shard answered for {len(head.tables)} tables of {len(self.batch.tables)}")
        for table, exists_U, answer in zip(self.batch.tables, self.exists, head.tables, strict=True):
            if answer.dim != table.config.dim:
                raise DimensionMismatch(
                    f"table {table.config.name!r} had dim {table.config.dim} and has {answer.dim} now: it was dropped "
                    "and made anew; client.tables() learns the new one"
                )
            if len(exists_U):
                put_flags(exists_U, table.positions(shard), answer.exists)


def put_flags(flags_U: npt.NDArray[np.bool_], where: slice | npt.NDArray[np.int64], encoded: bytes) -> None:
    """Puts one shard's flags where its ids are; raises InternalError if it sent another number of them."""
    flags_N = codec.decode_flags(encoded)
    if len(flags_N) != len(flags_U[where]):
        raise InternalError(f"the shard sent {len(flags_N)} flags for {len(flags_U[where])} ids")
    flags_U[where] = flags_N


def _decode(chunk: bytes, dtype: str) -> Rows:
    rows = codec.decode_rows(codec.payload_of(chunk), codec.wire_dtype(dtype)[1])
    if dtype == "fp16" and not all_finite(rows):
        raise InvalidArgument("a row holds a value that fp16 cannot (beyond 65504): pull with wire_dtype='fp32'")
    return rows


class _RowWriter:
    """Puts the rows of one shard's stream where they belong, as they arrive."""

    def __init__(self, pulled: Pulled, shard: int) -> None:
        tables = zip(pulled.batch.tables, pulled.rows, strict=True)
        self._tables = [(table, table.split.of(shard), rows_UD) for table, rows_UD in tables]
        self._table = self._done = 0

    def add(self, flat: Rows) -> None:
        """Takes a run of whole rows, over as many tables as it covers."""
        while len(flat):
            self._skip_done()
            if self._table == len(self._tables):
                raise InternalError("the shard sent more rows than were asked for")
            table, where, rows_UD = self._tables[self._table]
            dim = table.config.dim
            n = min(where.stop - where.start - self._done, len(flat) // dim)
            if not n:
                raise InternalError(f"the shard's chunk ends inside a row of table {table.config.name!r} (dim {dim})")
            block_ND = flat[: n * dim].reshape(n, dim)
            start = where.start + self._done
            if table.split.order_N is None:
                rows_UD[start : start + n] = block_ND
            else:
                place(block_ND, table.split.order_N[start : start + n], rows_UD)
            self._done += n
            flat = flat[n * dim :]

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
