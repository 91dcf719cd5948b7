"""Reads the body of a push or a write: turns its chunks into gradients, which are checked and digested as they
arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from ps.config import check_table_name
from ps.errors import DimensionMismatch, InvalidArgument, LengthMismatch, ResourceExhausted
from ps.server.body_parts import heads_of, reader
from ps.shard import Gradients
from ps.shard.requests import BagGradients
from ps.shard.writes import bodies
from ps.shard.writes.arrivals import Arriving
from ps.table.push_count import check_said
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec

SMALL_CHUNKS = 1024
"""How many small chunks a body may come in: each costs some hundred bytes beside its own."""
SMALL_CHUNK_BYTES = 4096
"""A body may come in one more chunk for each piece of this size."""
NOTHING = (pb.ENCODING_FP32, 0)
"""The head of a block of no rows."""


class _Table:
    """One table's part of a body: the gradients of its bags, if it has any, then those of its rows."""

    def __init__(self, shape: pb.PushedTable) -> None:
        """Raises DimensionMismatch, LengthMismatch or InvalidArgument if the head does not fit the table."""
        check_table_name(shape.table)
        if (shape.rows or shape.bags) and not shape.dim:
            raise DimensionMismatch(f"table {shape.table!r}: rows of dim 0")
        check_said(shape.table, shape.pushes)
        self._shape = shape
        self._positives_N = codec.decode_counts(shape.positives, shape.rows)
        self._bags = reader(shape.table, shape.bags, shape.dim, shape.bag_blocks)
        self._rows = reader(shape.table, shape.rows, shape.dim, shape.blocks)
        self.parts = (self._bags, self._rows)
        spread = shape.rows * shape.dim * 4 if shape.bag_blocks else 0
        self.nbytes = self._bags.nbytes + self._rows.nbytes + spread
        """Bytes of the messages, of what they are decoded to, and of the rows' gradients that are made of bags'
        gradients."""

    def gradients(self) -> Gradients:
        """Returns all gradients of the table; raises the errors of its parts."""
        shape = self._shape
        bags_R, of_bags, bags_came = self._bags.decoded()
        rows_R, of_rows, came = self._rows.decoded()
        bags = BagGradients(shape.bags, shape.dim, of_bags, bags_R, bags_came) if shape.bag_blocks else None
        return Gradients(shape.table, of_rows, self._positives_N, rows_R, shape.rows, bags, shape.pushes, came)

    @property
    def head(self) -> bodies.Head:
        """What the head says of the table's gradients, in the form in which it is logged and digested."""
        shape = self._shape
        of_bags, of_rows = (
            [head for head in heads_of(part) if head != NOTHING] for part in (shape.bag_blocks, shape.blocks)
        )
        return bodies.Head(
            shape.table, shape.rows, shape.dim, shape.pushes, self._positives_N, shape.bags, of_bags, of_rows
        )


class BodyReader:
    """Collects the body that a stream's head has announced."""

    def __init__(
        self, shapes: Sequence[pb.PushedTable], max_bytes: int, update: Callable[[memoryview], object] = len
    ) -> None:
        """update: is called with each chunk, which it digests."""
        self._tables = [_Table(shape) for shape in shapes]
        self._parts = [part for table in self._tables for part in table.parts]
        self.nbytes = sum(table.nbytes for table in self._tables)
        """Bytes that the whole body takes, as it comes and decoded."""
        self.received = 0
        """Bytes that have come so far."""
        if self.nbytes > max_bytes:
            raise ResourceExhausted(
                f"a body of {self.nbytes:,} bytes is over the limit of {max_bytes:,} (limits.max_body_bytes, and a "
                "share of memory.ram_bytes): send smaller batches"
            )
        self._update = update
        self._part = 0
        self._chunks = 0
        self._most_chunks = SMALL_CHUNKS + self.nbytes // SMALL_CHUNK_BYTES

    @property
    def heads(self) -> list[bodies.Head]:
        """What the head says of each table's gradients."""
        return [table.head for table in self._tables]

    def add(self, payload: memoryview) -> None:
        """Takes one chunk; raises LengthMismatch, InvalidArgument or NonFiniteGradient."""
        self._chunks += 1
        if self._chunks > self._most_chunks:
            raise InvalidArgument(
                f"a body of {self.nbytes:,} bytes in more than {self._most_chunks:,} chunks: send "
                f"{SMALL_CHUNK_BYTES:,} bytes or more in each"
            )
        self._update(payload)
        self.received += len(payload)
        while len(payload):
            while self._part < len(self._parts) and self._parts[self._part].done:
                self._part += 1
            if self._part == len(self._parts):
                raise LengthMismatch(f"the body is {len(payload)} bytes longer than its head announced")
            payload = self._parts[self._part].take(payload)

    def finish(self) -> list[Gradients]:
        """Returns the gradients, table by table. Raises LengthMismatch if the stream ended early."""
        return [table.gradients() for table in self._tables]


def read_body(
    chunks: Iterator[bytes], first_payload: memoryview, reader: BodyReader, arriving: Arriving
) -> list[Gradients]:
    """Reads the whole stream after its head. Each chunk is counted in the budget of messages when it comes."""
    for payload in chain((first_payload,), map(codec.payload_of, chunks)):
        if len(payload):
            arriving.hold(len(payload))
        reader.add(payload)
    arriving.hold(max(reader.nbytes - reader.received, 0))
    return reader.finish()
