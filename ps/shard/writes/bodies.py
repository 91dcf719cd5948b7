"""The gradients of a push as bytes. Compressed blocks stay as they came.

tables    = n(u32) head* body*                 a head and a body for each table, in their order
head      = table(text) rows(u64) dim(u32) pushes(u64) positives bags(u64) blocks blocks     of bags, of rows
positives = given(u8) [array of u32]
blocks    = n(u32), then n times: encoding(i32) bytes(u64)
body      = block* block*                      of bags, of rows
block     = POSITIONS: i64 of rows, f32 of their gradients     FP32: f32 of all rows
            other encodings: as on the wire (ps/wire/encodings.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Rows
from ps.errors import CorruptWrite
from ps.kernels.rows.rows import all_finite
from ps.shard.requests import BagGradients, Came, Gradients
from ps.shard.writes.grammar import Heads, Packer, Unpacker

POSITIONS, FP32 = 0, 1
"""Encodings that the shard reads itself; the wire has 1 too, and no 0."""

Selection = npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Head:
    """What is said of one table's gradients before they come."""

    table: str
    rows: int
    dim: int
    pushes: int
    positives_N: Counts | None
    bags: int
    of_bags: Heads
    of_rows: Heads

    def pack(self, out: Packer) -> None:
        """Packs the head. Where there are neither rows nor bags, no dim is said."""
        out.text(self.table)
        dim = self.dim if self.rows or self.bags else 0
        out.numbers("QIQB", self.rows, dim, self.pushes, self.positives_N is not None)
        if self.positives_N is not None:
            out.array(self.positives_N, "<u4")
        out.numbers("Q", self.bags)
        for heads in (self.of_bags, self.of_rows):
            out.numbers("I" + "iQ" * len(heads), len(heads), *(number for head in heads for number in head))

    @classmethod
    def read(cls, data: Unpacker) -> Head:
        """Reads a head."""
        table = data.text()
        rows, dim, pushes, given = data.numbers("QIQB")
        positives_N = data.array("<u4") if given else None
        bags = data.number("Q")
        of_bags, of_rows = ([data.numbers("iQ") for _ in range(data.number("I"))] for _ in range(2))
        pairs = [[(encoding, nbytes) for encoding, nbytes in heads] for heads in (of_bags, of_rows)]
        return cls(table, rows, dim, pushes, positives_N, bags, *pairs)


def pack(gradients: Sequence[Gradients], out: Packer) -> None:
    """Packs the heads and bodies of all tables."""
    pack_heads([_head(part) for part in gradients], out)
    for part in gradients:
        if part.bags is not None:
            _pack_body(part.bags.came, part.bags.bags_R, part.bags.blocks, out)
        _pack_body(part.came, part.rows_R, part.blocks, out)


def pack_heads(heads: Sequence[Head], out: Packer) -> None:
    """Packs the heads of all tables."""
    out.numbers("I", len(heads))
    for head in heads:
        head.pack(out)


def read(data: Unpacker) -> list[Gradients]:
    """Reads the heads and bodies of all tables."""
    return [_read_table(head, data) for head in [Head.read(data) for _ in range(data.number("I"))]]


def _head(part: Gradients) -> Head:
    bags = part.bags
    sent = sum(map(len, part.blocks))
    blocks = [*(bags.blocks if bags is not None else ()), *part.blocks]
    dim = blocks[0].shape[1] if blocks else bags.dim if bags is not None else 0
    of_bags = _heads(bags.came, bags.bags_R, bags.blocks) if bags is not None else []
    of_rows = _heads(part.came, part.rows_R, part.blocks)
    n_bags = bags.bags if bags is not None else 0
    rows = part.ids if part.ids is not None else sent
    return Head(part.table, rows, dim, part.pushes, part.positives_N, n_bags, of_bags, of_rows)


def _heads(came: Came | None, selected_R: Selection, blocks: Sequence[Rows]) -> Heads:
    if came is not None:
        return came.heads
    nbytes = sum(block.size for block in blocks) * 4
    if selected_R is not None:
        return [(POSITIONS, nbytes + 8 * len(selected_R))]
    return [(FP32, nbytes)] if nbytes else []


def _pack_body(came: Came | None, selected_R: Selection, blocks: Sequence[Rows], out: Packer) -> None:
    if came is not None:
        out.raw(came.data)
        return
    if selected_R is not None:
        out.raw(np.ascontiguousarray(selected_R, "<i8").view(np.uint8).data)
    out.rows(blocks)


def _read_table(head: Head, data: Unpacker) -> Gradients:
    bags = None
    if head.of_bags:
        bags_R, of_bags, came = _read_body(head.of_bags, head.bags, head.dim, data)
        bags = BagGradients(head.bags, head.dim, of_bags, bags_R, came)
    rows_R, of_rows, came = _read_body(head.of_rows, head.rows, head.dim, data)
    return Gradients(head.table, of_rows, head.positives_N, rows_R, head.rows, bags, head.pushes, came)


def _read_body(heads: Heads, n: int, dim: int, data: Unpacker) -> tuple[Selection, list[Rows], Came | None]:
    came = None
    body = data.raw(sum(nbytes for _, nbytes in heads))
    if not heads:
        selected_R, rows_RD = None if not n else np.empty(0, np.int64), np.empty((0, dim), np.float32)
    elif len(heads) == 1 and heads[0][0] == FP32:
        selected_R, rows_RD = None, _floats(body, n, dim)
    elif len(heads) == 1 and heads[0][0] == POSITIONS:
        selected_R, rows_RD = _selected(body, n, dim)
    else:
        selected_R, rows_RD = data.wire.rows(heads, body, n, dim)
        came = Came(heads, body)
    if not all_finite(rows_RD.reshape(-1)):
        raise CorruptWrite("a write has a gradient that is not finite")
    return selected_R, [rows_RD] if dim else [], came


def _floats(body: memoryview, n: int, dim: int) -> Rows:
    if len(body) != 4 * n * dim:
        raise CorruptWrite(f"{len(body):,} bytes of {n:,} gradients of dim {dim} in a write")
    return np.require(np.frombuffer(body, "<f4"), np.float32, "A").reshape(n, dim)


def _selected(body: memoryview, n: int, dim: int) -> tuple[npt.NDArray[np.int64], Rows]:
    count, rest = divmod(len(body), 8 + 4 * dim)
    if rest:
        raise CorruptWrite(f"{len(body):,} bytes of selected gradients of dim {dim} in a write")
    selected_R = np.require(np.frombuffer(body[: 8 * count], "<i8"), np.int64, "A")
    if count and (selected_R[0] < 0 or selected_R[-1] >= n or (np.diff(selected_R) <= 0).any()):
        raise CorruptWrite(f"positions of selected gradients do not ascend within [0, {n:,}) in a write")
    return selected_R, _floats(body[8 * count :], count, dim)
