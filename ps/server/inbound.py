"""Streams on their way in: chunks to gradient blocks, checked and digested as they arrive.

Nothing is copied: the blocks are views of the messages, and the optimizer's kernel reads them where they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import xxhash

from ps.arrays import Rows
from ps.config import check_table_name
from ps.errors import DimensionMismatch, InvalidArgument, LengthMismatch, NonFiniteGradient, ResourceExhausted
from ps.kernels.rows.rows import all_finite
from ps.round import Round
from ps.shard import Gradients, StepRef, TableIds
from ps.shard.requests import BagGradients, Bags
from ps.shard.writes.arrivals import Arriving
from ps.table.push_count import check_said
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec, encodings
from ps.wire.bags import decode_bags
from ps.wire.sorted_ids import decode_sorted_ids
from ps.wire.unpacking import count_ids

SMALL_CHUNKS = 1024
"""That a body may come in: each chunk costs some hundred bytes beside its own."""
SMALL_CHUNK_BYTES = 4096
"""Beyond those, as many more as there are such pieces of the body."""

Decoded = tuple[npt.NDArray[np.int64] | None, list[Rows]]
"""Which rows, ascending, or None for all; and their gradients, float32 [k, dim] each."""


class _Rows:
    """Every row as it is, in the order of the ids: views of the messages. Or a gradient of every bag."""

    def __init__(self, table: str, rows: int, dim: int, block: pb.Block) -> None:
        """Raises LengthMismatch where the block is not just that long."""
        self._table = table
        self._rows = rows
        self._dim = dim
        self._missing = rows
        self._blocks: list[Rows] = []
        self.nbytes = rows * dim * 4
        """Of the messages."""
        if block.bytes != self.nbytes:
            raise LengthMismatch(
                f"table {table!r}: {rows} rows of dim {dim} are announced as {block.bytes} bytes, and are {self.nbytes}"
            )

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Cuts what is this part's off the front; raises LengthMismatch or NonFiniteGradient."""
        dim = self._dim
        rows = min(self._missing, len(payload) // (dim * 4))
        if not rows:
            raise LengthMismatch(f"a chunk ends inside a row of table {self._table!r} (dim {dim})")
        end = rows * dim * 4
        flat = codec.decode_rows(payload[:end])
        _check_finite(flat, self._table)
        self._blocks.append(flat.reshape(rows, dim))
        self._missing -= rows
        return payload[end:]

    def decoded(self) -> Decoded:
        """All of it; raises LengthMismatch if the stream ended early."""
        if self._missing:
            raise LengthMismatch(
                f"table {self._table!r}: the body ended {self._missing} rows short of the {self._rows} announced"
            )
        return None, self._blocks


class _Blocks:
    """Rows in blocks that are decoded when all are here; or some of the rows, or elements of them."""

    def __init__(self, table: str, rows: int, dim: int, heads: Sequence[pb.Block]) -> None:
        self._table = table
        self._rows = rows
        self._dim = dim
        self._heads = heads
        self._missing = sum(block.bytes for block in heads)
        self._parts: list[memoryview] = []
        decoded = rows * (dim * 4 * min(len(heads), 2) + 8 * (len(heads) > 1))
        self.nbytes = self._missing + decoded
        """As they come and as float32: in several blocks, once more while they are joined."""

    @property
    def done(self) -> bool:
        """Whether all of it is here."""
        return not self._missing

    def take(self, payload: memoryview) -> memoryview:
        """Cuts what is this part's off the front."""
        part = payload[: self._missing]
        self._parts.append(part)
        self._missing -= len(part)
        return payload[len(part) :]

    def decoded(self) -> Decoded:
        """All of it; raises LengthMismatch, InvalidArgument, DtypeMismatch or NonFiniteGradient."""
        if self._missing:
            raise LengthMismatch(
                f"table {self._table!r}: the body ended {self._missing} bytes short of the blocks announced"
            )
        parts = self._decode(codec.merged(self._parts))
        rows_R, grads_RD = next(parts) if len(self._heads) == 1 else blocks.joined(parts, self._rows, self._dim)
        _check_finite(grads_RD.reshape(-1), self._table)
        return rows_R, [grads_RD]

    def _decode(self, body: memoryview) -> Iterator[tuple[npt.NDArray[np.int64] | None, Rows]]:
        for block in self._heads:
            data, body = body[: block.bytes], body[block.bytes :]
            yield encodings.decode(data, block.encoding, self._rows, self._dim)


def _reader(table: str, rows: int, dim: int, heads: Sequence[pb.Block]) -> _Rows | _Blocks:
    exact = len(heads) == 1 and heads[0].encoding == pb.ENCODING_FP32
    return _Rows(table, rows, dim, heads[0]) if exact else _Blocks(table, rows, dim, heads)


class _Table:
    """One table's part of a body: gradients of bags, if any, then of rows."""

    def __init__(self, shape: pb.PushedTable) -> None:
        """Raises DimensionMismatch, LengthMismatch or InvalidArgument."""
        check_table_name(shape.table)
        if (shape.rows or shape.bags) and not shape.dim:
            raise DimensionMismatch(f"table {shape.table!r}: rows of dim 0")
        check_said(shape.table, shape.pushes)
        self._shape = shape
        self._bags = _reader(shape.table, shape.bags, shape.dim, shape.bag_blocks)
        self._rows = _reader(shape.table, shape.rows, shape.dim, shape.blocks)
        self.parts = (self._bags, self._rows)
        spread = shape.rows * shape.dim * 4 if shape.bag_blocks else 0
        self.nbytes = self._bags.nbytes + self._rows.nbytes + spread
        """Of the messages, of what they are decoded to, and of the bags' gradients as those of rows."""

    def gradients(self) -> Gradients:
        """All of it; raises what the parts raise."""
        shape = self._shape
        (bags_R, of_bags), (rows_R, of_rows) = self._bags.decoded(), self._rows.decoded()
        bags = BagGradients(shape.bags, shape.dim, of_bags, bags_R) if shape.bag_blocks else None
        positives_N = codec.decode_counts(shape.positives, shape.rows)
        return Gradients(shape.table, of_rows, positives_N, rows_R, shape.rows, bags, shape.pushes)


class BodyReader:
    """Collects what a stream's head has announced."""

    def __init__(self, shapes: Sequence[pb.PushedTable], max_bytes: int, digest: xxhash.xxh3_128) -> None:
        self._tables = [_Table(shape) for shape in shapes]
        self._parts = [part for table in self._tables for part in table.parts]
        self.nbytes = sum(table.nbytes for table in self._tables)
        """The whole body takes so many, as it comes and as it is decoded."""
        self.received = 0
        """Bytes that have come."""
        if self.nbytes > max_bytes:
            raise ResourceExhausted(
                f"a body of {self.nbytes:,} bytes is over the limit of {max_bytes:,} (limits.max_body_bytes, and a "
                "share of memory.ram_bytes): send smaller batches"
            )
        self._digest = digest
        self._part = 0
        self._chunks = 0
        self._most_chunks = SMALL_CHUNKS + self.nbytes // SMALL_CHUNK_BYTES

    def add(self, payload: memoryview) -> None:
        """Takes one chunk; raises LengthMismatch, InvalidArgument or NonFiniteGradient."""
        self._chunks += 1
        if self._chunks > self._most_chunks:
            raise InvalidArgument(
                f"a body of {self.nbytes:,} bytes in more than {self._most_chunks:,} chunks: send "
                f"{SMALL_CHUNK_BYTES:,} bytes or more in each"
            )
        self._digest.update(payload)
        self.received += len(payload)
        while len(payload):
            while self._part < len(self._parts) and self._parts[self._part].done:
                self._part += 1
            if self._part == len(self._parts):
                raise LengthMismatch(f"the body is {len(payload)} bytes longer than its head announced")
            payload = self._parts[self._part].take(payload)

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


def read_body(
    chunks: Iterator[bytes], first_payload: memoryview, reader: BodyReader, arriving: Arriving
) -> list[Gradients]:
    """The whole stream after its head, held as it comes."""
    for payload in chain((first_payload,), map(codec.payload_of, chunks)):
        if len(payload):
            arriving.hold(len(payload))
        reader.add(payload)
    arriving.hold(max(reader.nbytes - reader.received, 0))
    return reader.finish()


def table_ids(message: pb.TableIds, max_ids: int) -> TableIds:
    """Ids and counts of one table, for a write; raises ResourceExhausted over the limit."""
    if message.bags:
        raise InvalidArgument(f"table {message.table!r}: bags are for steps; a write is of rows")
    (part,) = id_set(pb.IdSet(tables=[message]), max_ids)
    return part


def id_set(message: pb.IdSet, max_ids: int) -> list[TableIds]:
    """Ids, counts and bags of all tables; raises ResourceExhausted over the limit."""
    total = sum(map(count_ids, message.tables))
    if total > max_ids:
        raise ResourceExhausted(
            f"{total:,} ids in one request, the limit is {max_ids:,} (limits.max_ids): send fewer at once"
        )
    return [_table_ids(part) for part in message.tables]


def _table_ids(message: pb.TableIds) -> TableIds:
    check_table_name(message.table)
    if message.ids and message.sorted_ids:
        raise InvalidArgument(f"table {message.table!r}: ids are sent twice, as they are and sorted")
    ids_N = decode_sorted_ids(message.sorted_ids) if message.sorted_ids else codec.decode_ids(message.ids)
    bags = Bags(*decode_bags(message.bags, len(ids_N))) if message.bags else None
    return TableIds(message.table, ids_N, codec.decode_counts(message.counts, len(ids_N)), bags)


def step_ref(header: pb.Header, ref: pb.StepRef, ids_digest: int = 0) -> StepRef:
    """The handle of a worker's step, under the routing table of the request."""
    return StepRef(header.worker_id, ref.step, header.routing_epoch, ids_digest)


def place_of(head: pb.PushHead) -> Round | None:
    """The round that a push is part of, if any; raises InvalidArgument."""
    if not head.HasField("round"):
        return None
    return Round(head.round.group, head.round.number, head.round.rank, head.round.ranks)
