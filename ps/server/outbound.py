"""Encodes answers: a pull's head, and chunks of rows as messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ps.arrays import Flags, Rows
from ps.errors import InvalidArgument, NonFiniteGradient
from ps.shard.reads.stream import floats_of
from ps.shard.reads.stream import plain as plain_rows
from ps.shard.requests import Cut, PulledTable, PullHead
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec
from ps.wire.encodings import NUMBERS
from ps.wire.formats import TableFormat
from ps.wire.selected import Selected


@dataclass(frozen=True)
class Chunk:
    """Rows of a message whose encoding differs from their form in memory."""

    cuts: Sequence[Cut]
    floats: Rows


def allocate_message(cuts: Sequence[Cut]) -> tuple[bytes, Rows]:
    """Returns a message for rows as they are in memory, and a view of where they go in it."""
    parts = [
        pb.PulledPart(rows=cut.end - cut.start, blocks=[pb.Block(encoding=pb.ENCODING_FP32, bytes=4 * cut.floats)])
        for cut in cuts
    ]
    return codec.blank_payload_message(floats_of(cuts), pb.PullChunk(parts=parts).SerializeToString())


def allocate_chunk(cuts: Sequence[Cut]) -> tuple[Chunk, Rows]:
    """Returns a chunk that `messages` will encode."""
    floats = plain_rows(cuts)[0]
    return Chunk(cuts, floats), floats


def pull_head(head: PullHead) -> pb.PullHead:
    """Returns the head of a pull, which is its first message."""
    tables = [
        pb.PulledTable(
            dim=table.dim,
            rows=table.rows,
            exists=codec.encode_flags(table.exists_N),
            important=codec.encode_flags(table.important_N),
        )
        for table in head.tables
    ]
    return pb.PullHead(version=head.version, tables=tables)


def formats_of(request: pb.PullRequest) -> list[TableFormat]:
    """Returns the formats asked for, table by table; if none are, all tables are sent in fp32. Raises DtypeMismatch or
    InvalidArgument."""
    return [TableFormat.from_proto(one) for one in request.formats]


def messages(chunks: Iterable[Chunk], head: PullHead, formats: Sequence[TableFormat]) -> Iterator[bytes]:
    """Yields messages of the rows in the precision that was asked for. Raises InvalidArgument for a value that this
    precision cannot hold."""
    for chunk in chunks:
        parts: list[pb.PulledPart] = []
        sent: list[memoryview] = []
        used = 0
        for cut in chunk.cuts:
            rows_ND = chunk.floats[used : used + cut.floats].reshape(-1, cut.dim)
            used += cut.floats
            encoded = _encoded(rows_ND, head.tables[cut.table], cut, formats[cut.table])
            parts.append(pb.PulledPart(rows=len(rows_ND), blocks=blocks.heads(encoded)))
            sent.extend(block.data for block in encoded)
        yield codec.payload_message(codec.merged(sent), pb.PullChunk(parts=parts).SerializeToString())


def _encoded(rows_ND: Rows, table: PulledTable, cut: Cut, form: TableFormat) -> list[blocks.EncodedBlock]:
    flags_N = None if table.of_bags else table.important_N  # sums are sent as important rows are
    important_N = None if flags_N is None else flags_N[cut.start : cut.end]
    values_ND = blocks.masked(rows_ND, form.mask_below)
    selected = Selected(None, values_ND, elements=form.mask_below > 0)
    try:
        return blocks.encode(selected, len(rows_ND), form, important_N)
    except NonFiniteGradient as error:
        whose = _first_beyond(rows_ND, table, cut.start, form, important_N)
        raise InvalidArgument(
            f"table {table.table!r}: {whose} cannot be sent as asked for: {error}; pull with wire_dtype='fp32'"
        ) from None


def _first_beyond(rows_ND: Rows, table: PulledTable, start: int, form: TableFormat, important_N: Flags | None) -> str:
    """Returns the name of the first row that its precision cannot hold, for a message. start: the position of these
    rows among the table's."""
    important, others = NUMBERS[form.important].limit, NUMBERS[form.others].limit
    limits_N = np.full(len(rows_ND), important)
    if important_N is not None:
        limits_N[~important_N] = others
    beyond_N = ~(np.abs(rows_ND) < limits_N[:, None]).all(axis=1) & np.isfinite(limits_N)  # "not below" is true of NaN
    at = start + int(np.argmax(beyond_N))
    return f"the sum of bag {at}" if table.of_bags else f"the row of id {table.ids_N[at]}"
