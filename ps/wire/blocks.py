"""Encodes a part of a body, rows or gradients of one table, as a list of blocks: important rows precisely, the others
in fewer bytes.

Each row is in one block. `ps.wire.encodings` has what a block is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ps.arrays import Flags, Positions, Rows
from ps.errors import InvalidArgument
from ps.kernels.packing import packing
from ps.kernels.rows.rows import place
from ps.v1 import embedding_pb2 as pb
from ps.wire import encodings
from ps.wire.formats import TableFormat
from ps.wire.selected import Selected


@dataclass(frozen=True)
class EncodedBlock:
    """A block in the form in which it is sent."""

    encoding: pb.Encoding
    data: memoryview
    unit: int = 1
    """The block may be split at multiples of so many bytes: float32 of all rows between rows, other blocks anywhere."""

    @property
    def head(self) -> pb.Block:
        """Returns the block's head, which is sent before it."""
        return pb.Block(encoding=self.encoding, bytes=len(self.data))


def whole(rows_ND: Rows) -> list[EncodedBlock]:
    """Returns one block that has every row as it is, as a view; no block if there are no rows."""
    n, dim = rows_ND.shape
    return [_encoded(Selected(None, rows_ND), pb.ENCODING_FP32, n)] if n * dim else []


def encode(selected: Selected, n_rows: int, form: TableFormat, important_N: Flags | None = None) -> list[EncodedBlock]:
    """Returns blocks of the selected rows, of n_rows, in the fewest bytes. important_N: bool [n_rows]; None: not known,
    all rows are sent as important ones. Raises NonFiniteGradient for a number that is not finite, or too large for its
    precision."""
    if important_N is None or form.important == form.others:
        return _block(selected, form.important, n_rows)
    flags_R = important_N if selected.rows_R is None else important_N[selected.rows_R]
    return [
        *_block(_where(selected, flags_R), form.important, n_rows),
        *_block(_where(selected, ~flags_R), form.others, n_rows),
    ]


def masked(rows_ND: Rows, mask_below: float) -> Rows:
    """Returns rows in which elements of a smaller magnitude than `mask_below` are 0; the rows themselves if that is 0.
    NaN stays."""
    if not mask_below:
        return rows_ND
    out_ND = np.empty_like(rows_ND)
    packing.mask(rows_ND.reshape(-1), np.float32(mask_below), out_ND.reshape(-1))
    return out_ND


def joined(parts: Iterable[tuple[Positions | None, Rows]], n_rows: int, dim: int) -> tuple[Positions | None, Rows]:
    """Returns the rows of all blocks together: (int64 [R] ascending, or None if these are all rows; float32 [R, dim]).

    It stops at the first row that comes twice, so it holds at most twice n_rows and a block. Raises InvalidArgument for
    a row that is in two blocks.
    """
    read: list[tuple[Positions, Rows]] = []
    at_N = np.empty(0, np.int64)
    for rows_R, block_RD in parts:
        at_N = at_N if len(at_N) else np.full(n_rows, -1, np.int64)  # now there are bytes to show for so many rows
        positions_R = np.arange(n_rows) if rows_R is None else rows_R
        if (at_N[positions_R] >= 0).any():
            raise InvalidArgument("a row is in two blocks of its table")
        at_N[positions_R] = 0
        read.append((positions_R, block_RD))
    sent_R = np.flatnonzero(at_N >= 0)
    at_N[sent_R] = np.arange(len(sent_R))
    out_RD = np.empty((len(sent_R), dim), np.float32)
    for positions_R, block_RD in read:
        place(block_RD, at_N[positions_R], out_RD)
    return None if len(sent_R) == n_rows else sent_R, out_RD


def decode(heads: Sequence[tuple[int, int]], body: memoryview, n_rows: int, dim: int) -> tuple[Positions | None, Rows]:
    """Returns the rows of blocks of these encodings and bytes, as `joined` does; raises as `encodings.decode`."""

    def parts() -> Iterator[tuple[Positions | None, Rows]]:
        start = 0
        for encoding, nbytes in heads:
            yield encodings.decode(body[start : start + nbytes], encoding, n_rows, dim)
            start += nbytes

    return next(parts()) if len(heads) == 1 else joined(parts(), n_rows, dim)


def heads(blocks: Sequence[EncodedBlock]) -> list[pb.Block]:
    """Returns the heads of blocks, which are sent before them."""
    return [block.head for block in blocks]


def _where(selected: Selected, chosen_R: Flags) -> Selected:
    rows_R = np.flatnonzero(chosen_R)
    positions_R = rows_R if selected.rows_R is None else selected.rows_R[rows_R]
    return Selected(positions_R, selected.grads_RD[rows_R], selected.elements)


def _block(selected: Selected, precision: str, n_rows: int) -> list[EncodedBlock]:
    if not len(selected):
        return []
    return [_encoded(selected, encodings.cheapest(selected, precision, n_rows), n_rows)]


def _encoded(selected: Selected, encoding: pb.Encoding, n_rows: int) -> EncodedBlock:
    unit = 4 * selected.grads_RD.shape[1] if encoding == pb.ENCODING_FP32 else 1
    return EncodedBlock(encoding, encodings.encode(selected, encoding, n_rows), unit)
