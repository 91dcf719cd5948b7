"""Streams on their way in: chunks to gradient blocks, checked and digested as they arrive.

Nothing is copied: the blocks are views of the messages, and the optimizer's kernel reads them where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import xxhash

from ps.errors import DimensionMismatch, InvalidArgument, LengthMismatch, NonFiniteGradient, ResourceExhausted
from ps.kernels.rows import all_finite
from ps.shard import Gradients, StepRef, TableIds
from ps.shard.requests import Rows
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, encodings
from ps.wire.sorted_ids import decode_sorted_ids, sorted_count


class _Rows:
    """Every row of a table as it is, in the order of the ids: views of the messages."""

    def __init__(self, shape: pb.PushedTable) -> None:
        """Raises LengthMismatch where the block is not just that long."""
        self._shape = shape
        self._missing = shape.rows
        self._blocks: list[Rows] = []
        self.nbytes = shape.rows * shape.dim * 4
        """Of the messages."""
        if shape.blocks[0].bytes != self.nbytes:
            raise LengthMismatch(
                f"table {shape.table!r}: {shape.rows} rows of dim {shape.dim} are announced as "
                f"{shape.blocks[0].bytes} bytes, and are {self.nbytes}"
            )

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Cuts what is this table's off the front; raises LengthMismatch or NonFiniteGradient."""
        dim = self._shape.dim
        rows = min(self._missing, len(payload) // (dim * 4))
        if not rows:
            raise LengthMismatch(f"a chunk ends inside a row of table {self._shape.table!r} (dim {dim})")
        end = rows * dim * 4
        flat = codec.decode_rows(payload[:end])
        _check_finite(flat, self._shape.table)
        self._blocks.append(flat.reshape(rows, dim))
        self._missing -= rows
        return payload[end:]

    def gradients(self) -> Gradients:
        """All of it; raises LengthMismatch if the stream ended early."""
        shape = self._shape
        if self._missing:
            raise LengthMismatch(
                f"table {shape.table!r}: the body ended {self._missing} rows short of the {shape.rows} announced"
            )
        return Gradients(shape.table, self._blocks, codec.decode_counts(shape.positives, shape.rows))


class _Blocks:
    """The rows of a table in blocks that are decoded when all are here; or some of the rows, or elements of them."""

    def __init__(self, shape: pb.PushedTable) -> None:
        self._shape = shape
        self._missing = sum(block.bytes for block in shape.blocks)
        self._parts: list[memoryview] = []
        decoded = shape.rows * (shape.dim * 4 * min(len(shape.blocks), 2) + 8 * (len(shape.blocks) > 1))
        self.nbytes = self._missing + decoded
        """As they come and as float32: in several blocks, once more while they are joined."""

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Cuts what is this table's off the front."""
        part = payload[: self._missing]
        self._parts.append(part)
        self._missing -= len(part)
        return payload[len(part) :]

    def gradients(self) -> Gradients:
        """All of it; raises LengthMismatch, InvalidArgument, DtypeMismatch or NonFiniteGradient."""
        shape = self._shape
        if self._missing:
            raise LengthMismatch(
                f"table {shape.table!r}: the body ended {self._missing} bytes short of the blocks announced"
            )
        decoded = self._decoded(codec.merged(self._parts))
        one = len(shape.blocks) == 1
        rows_R, grads_RD = next(decoded) if one else blocks.joined(decoded, shape.rows, shape.dim)
        _check_finite(grads_RD.reshape(-1), shape.table)
        return Gradients(shape.table, [grads_RD], codec.decode_counts(shape.positives, shape.rows), rows_R, shape.rows)

    def _decoded(self, body: memoryview) -> Iterator[tuple[npt.NDArray[np.int64] | None, Rows]]:
        for block in self._shape.blocks:
            data, body = body[: block.bytes], body[block.bytes :]
            yield encodings.decode(data, block.encoding, self._shape.rows, self._shape.dim)


def _reader(shape: pb.PushedTable) -> _Rows | _Blocks:
    exact = len(shape.blocks) == 1 and shape.blocks[0].encoding == pb.ENCODING_FP32
    return _Rows(shape) if exact else _Blocks(shape)


class BodyReader:
    """Collects what a stream's head has announced."""

    def __init__(self, shapes: Sequence[pb.PushedTable], max_bytes: int, digest: xxhash.xxh3_128) -> None:
        for shape in shapes:
            if shape.rows and not shape.dim:
                raise DimensionMismatch(f"table {shape.table!r}: rows of dim 0")
        self._tables = [_reader(shape) for shape in shapes]
        self.nbytes = sum(table.nbytes for table in self._tables)
        """Of the whole body."""
        if self.nbytes > max_bytes:
            raise ResourceExhausted(
                f"a body of {self.nbytes:,} bytes is over the limit of {max_bytes:,} (max_body_bytes, and a share of "
                "ram_bytes): send smaller batches"
            )
        self._digest = digest
        self._table = 0

    def add(self, payload: memoryview) -> None:
        """Takes one chunk; raises LengthMismatch or NonFiniteGradient."""
        self._digest.update(payload)
        while len(payload):
            while self._table < len(self._tables) and self._tables[self._table].done:
                self._table += 1
            if self._table == len(self._tables):
                raise LengthMismatch(f"the body is {len(payload)} bytes longer than its head announced")
            payload = self._tables[self._table].take(payload)

    def finish(self) -> list[Gradients]:
        """The gradients, table by table; raises LengthMismatch if the stream ended early."""
        return [table.gradients() for table in self._tables]


def _check_finite(flat: Rows, table: str) -> None:
    if all_finite(flat):
        return
    at = int(np.flatnonzero(~np.isfinite(flat))[0])
    raise NonFiniteGradient(
        f"{flat[at]} in the rows sent to {table!r}; this shard applied nothing (check the loss, clip the gradients, or "
        "send fp32 if fp16 overflowed)"
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
    total = sum(len(part.ids) // 8 + sorted_count(part.sorted_ids) for part in message.tables)
    if total > max_ids:
        raise ResourceExhausted(f"{total:,} ids in one request, the limit is {max_ids:,} (max_ids): send fewer at once")
    return [_table_ids(part) for part in message.tables]


def _table_ids(message: pb.TableIds) -> TableIds:
    if message.ids and message.sorted_ids:
        raise InvalidArgument(f"table {message.table!r}: ids are sent twice, as they are and sorted")
    ids_N = decode_sorted_ids(message.sorted_ids) if message.sorted_ids else codec.decode_ids(message.ids)
    return TableIds(message.table, ids_N, codec.decode_counts(message.counts, len(ids_N)))


def step_ref(header: pb.Header, ref: pb.StepRef) -> StepRef:
    """The handle of a worker's step, under the routing table of the request."""
    return StepRef(header.worker_id, ref.step, header.routing_epoch)
