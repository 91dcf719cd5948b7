"""Streams on their way in: chunks to gradient blocks, checked and digested as they arrive.

Nothing is copied: the blocks are views of the messages, and the optimizer's kernel reads them where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import xxhash

from ps.errors import DimensionMismatch, LengthMismatch, NonFiniteGradient, ResourceExhausted
from ps.kernels.rows import all_finite
from ps.shard import Gradients, StepRef, TableIds
from ps.shard.requests import Rows
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec


class BodyReader:
    """Collects the rows that a stream's head has announced."""

    def __init__(
        self, shapes: Sequence[pb.PushedTable], dtype: np.dtype[np.generic], max_bytes: int, digest: xxhash.xxh3_128
    ) -> None:
        total = sum(shape.rows * shape.dim for shape in shapes) * 4
        if total > max_bytes:
            raise ResourceExhausted(
                f"a body of {total:,} bytes is over the limit of {max_bytes:,} (max_body_bytes): send smaller batches"
            )
        for shape in shapes:
            if shape.rows and not shape.dim:
                raise DimensionMismatch(f"table {shape.table!r}: rows of dim 0")
        self._dtype = dtype
        self._digest = digest
        self._blocks: list[list[Rows]] = [[] for _ in shapes]
        self._shapes = shapes
        self._missing = [shape.rows for shape in shapes]
        self._table = 0

    def add(self, payload: memoryview) -> None:
        """Takes one chunk; raises LengthMismatch or NonFiniteGradient."""
        self._digest.update(payload)
        flat = codec.decode_rows(payload, self._dtype)
        if not all_finite(flat):
            self._raise_not_finite(flat)
        while len(flat):
            flat = self._take(flat)

    def finish(self) -> list[Gradients]:
        """The gradients, table by table; raises LengthMismatch if the stream ended early."""
        for shape, missing in zip(self._shapes, self._missing, strict=True):
            if missing:
                raise LengthMismatch(
                    f"table {shape.table!r}: the body ended {missing} rows short of the {shape.rows} announced"
                )
        return [
            Gradients(shape.table, blocks, codec.decode_counts(shape.positives, shape.rows))
            for shape, blocks in zip(self._shapes, self._blocks, strict=True)
        ]

    def _take(self, flat: Rows) -> Rows:
        """Cuts the current table's rows off the front."""
        while self._table < len(self._shapes) and not self._missing[self._table]:
            self._table += 1
        if self._table == len(self._shapes):
            raise LengthMismatch(f"the body is {len(flat) * 4} bytes longer than its head announced")
        dim = self._shapes[self._table].dim
        rows = min(self._missing[self._table], len(flat) // dim)
        if not rows:
            raise LengthMismatch(f"a chunk ends inside a row of table {self._shapes[self._table].table!r} (dim {dim})")
        block_ND = flat[: rows * dim].reshape(rows, dim)
        self._blocks[self._table].append(block_ND)
        self._missing[self._table] -= rows
        return flat[rows * dim :]

    def _raise_not_finite(self, flat: Rows) -> None:
        at = int(np.flatnonzero(~np.isfinite(flat))[0])
        names = ", ".join(repr(shape.table) for shape in self._shapes)
        raise NonFiniteGradient(
            f"{flat[at]} in the rows sent to {names}; this shard applied nothing (check the loss, clip the gradients, "
            "or send fp32 if fp16 overflowed)"
        )


def read_body(chunks: Iterator[bytes], first_payload: memoryview, reader: BodyReader) -> list[Gradients]:
    """The whole stream after its head."""
    if len(first_payload):
        reader.add(first_payload)
    for chunk in chunks:
        reader.add(codec.payload_of(chunk))
    return reader.finish()


def table_ids(message: pb.TableIds, max_ids: int) -> TableIds:
    """Ids and counts of one table; raises ResourceExhausted over the limit."""
    (part,) = id_set(pb.IdSet(tables=[message]), max_ids)
    return part


def id_set(message: pb.IdSet, max_ids: int) -> list[TableIds]:
    """Ids and counts of all tables; raises ResourceExhausted over the limit."""
    total = sum(len(part.ids) for part in message.tables) // 8
    if total > max_ids:
        raise ResourceExhausted(f"{total:,} ids in one request, the limit is {max_ids:,} (max_ids): send fewer at once")
    return [_table_ids(part) for part in message.tables]


def _table_ids(message: pb.TableIds) -> TableIds:
    ids_N = codec.decode_ids(message.ids)
    return TableIds(message.table, ids_N, codec.decode_counts(message.counts, len(ids_N)))


def step_ref(header: pb.Header, ref: pb.StepRef) -> StepRef:
    """The handle of a worker's step, under the routing table of the request."""
    return StepRef(header.worker_id, ref.step, header.routing_epoch)
