"""Encodes gradients or rows of one table as bytes, all of them or a selection, in several number types, and decodes
them.

Of a step's n rows of dim D in a table, R are sent, each with all its elements or some. Both sides know n and D, and
nothing else is needed to read a block:

    block    = dense | rows | elements, then zeros up to a multiple of 4 bytes
    dense    = values                     FP32, FP16, INT8: of every row, R = n, each element
    rows     = bitmap values              ROWS_...: of the rows in the bitmap, each element
    elements = bitmap masks values        ELEMENTS_...: of those rows, the elements in the masks; others are 0
    bitmap   = bits(n)                    which rows; R of them are set
    masks    = bits(R D)                  which elements, in C order
    bits(m)  = byte{4 ceil(m / 32)}       from the lowest bit of the first byte on; bits beyond m are 0
    values   = float32-le* | float16-le* | int8-values       in C order
    int8-values = float32-le{R} int8*     a scale for each row; a value is the int8, not -128, times its row's scale

So float32 begin at multiples of 4, and are read where they lie. Bytes for n rows, R sent, b bytes a number (4, 2, 1):

    dense b n D    rows n / 8 + b R D    elements n / 8 + R D / 8 + b V for V nonzero ones    int8: 4 R more

A decoder allocates at most 64 times the bytes that it is given.
"""

from __future__ import annotations

from enum import Enum
from typing import cast

import numpy as np

from ps.arrays import Bytes, Positions, Rows, Words
from ps.errors import DimensionMismatch, DtypeMismatch, InvalidArgument, LengthMismatch
from ps.kernels.packing import packing
from ps.v1 import embedding_pb2 as pb
from ps.wire.block import Block, bits_bytes, blank_words, bytes_of, padded
from ps.wire.codec import Buffer
from ps.wire.selected import Selected
from ps.wire.values import Ends, Fp16, Fp32, Int8, Numbers

MAX_DIM = 2**32 - 1
"""The largest dim that the wire can express."""


class Layout(Enum):
    """How a block stores its rows; the grammar of `ps.wire.encodings` has the names."""

    DENSE = "dense"
    ROWS = "rows"
    ELEMENTS = "elements"


NUMBERS: dict[str, Numbers] = {"fp32": Fp32(), "fp16": Fp16(), "int8": Int8()}
"""The number types by precision."""

ENCODINGS: dict[pb.Encoding, tuple[Layout, str]] = {
    pb.ENCODING_FP32: (Layout.DENSE, "fp32"),
    pb.ENCODING_FP16: (Layout.DENSE, "fp16"),
    pb.ENCODING_INT8: (Layout.DENSE, "int8"),
    pb.ENCODING_ROWS_FP32: (Layout.ROWS, "fp32"),
    pb.ENCODING_ROWS_FP16: (Layout.ROWS, "fp16"),
    pb.ENCODING_ROWS_INT8: (Layout.ROWS, "int8"),
    pb.ENCODING_ELEMENTS_FP32: (Layout.ELEMENTS, "fp32"),
    pb.ENCODING_ELEMENTS_FP16: (Layout.ELEMENTS, "fp16"),
    pb.ENCODING_ELEMENTS_INT8: (Layout.ELEMENTS, "int8"),
}
"""Wire enum -> layout and precision."""

if set(ENCODINGS) != set(pb.Encoding.values()) - {pb.ENCODING_UNSPECIFIED}:
    raise ImportError("ps.wire.encodings does not know every Encoding of the proto file")  # a build mistake


def encode(selected: Selected, encoding: int, n_rows: int) -> memoryview:
    """Returns the bytes of a block; with ENCODING_FP32 they are a view of the gradients. A block of elements leaves
    zeros out, and -0 is read back as 0.

    Raises LengthMismatch, InvalidArgument for rows that do not ascend within [0, n_rows), or are not all in a dense
    block; DtypeMismatch for an unknown encoding; NonFiniteGradient for a value that its numbers cannot hold.
    """
    layout, precision = _known(encoding)
    numbers, (sent, dim), values_V = NUMBERS[precision], selected.grads_RD.shape, _flat(selected)
    expected = n_rows if selected.rows_R is None else len(selected.rows_R)
    if sent != expected:
        raise LengthMismatch(f"gradients of {sent} rows, and {expected} were selected")
    if layout is Layout.DENSE and sent != n_rows:
        raise InvalidArgument(f"{_name(encoding)} of {sent} of {n_rows} rows: it has room for all, and no others")
    if encoding == pb.ENCODING_FP32:
        return values_V.view(np.uint8).data
    front, ends = [] if layout is Layout.DENSE else [_bitmap(selected.rows_R, n_rows)], _dense_ends(sent, dim)
    if layout is Layout.ELEMENTS:
        words, values_V = _masks(values_V)
        front.append(bytes_of(words, sent * dim))
        ends = _masked_ends(words, sent, dim)
    return _joined(front, numbers, values_V, ends, sent)


def _joined(front: list[Bytes], numbers: Numbers, values_V: Rows, ends: Ends, sent: int) -> memoryview:
    start, size = sum(map(len, front)), numbers.size(sent, len(values_V))
    block_B = np.empty(start + padded(size), np.uint8)
    np.concatenate([*front, block_B[:0]], out=block_B[:start])
    block_B[start + size :] = 0
    numbers.write(values_V, ends, block_B[start : start + size])
    return block_B.data


def decode(payload: Buffer, encoding: int, n_rows: int, dim: int) -> tuple[Positions | None, Rows]:
    """Returns (positions of the rows, int64 [R] ascending, or None for all; the rows, float32 [R, dim]) of any bytes.
    In fp32 the rows are a read-only view unless elements were selected.

    Raises LengthMismatch, InvalidArgument; DtypeMismatch for an unknown encoding. Numbers are not checked: rows may be
    infinite or NaN.
    """
    layout, precision = _known(encoding)
    numbers, block = NUMBERS[precision], Block(payload, _name(encoding))
    if n_rows < 0 or not 1 <= dim <= MAX_DIM:
        raise DimensionMismatch(f"{_name(encoding)} of {n_rows} rows of dim {dim}: neither can be")
    if layout is Layout.DENSE:
        rows_R, sent = None, n_rows
    else:
        rows_R = _positions(block.bits(n_rows, "the bitmap of rows"))
        sent = len(rows_R)
    values, ends, words = sent * dim, _dense_ends(sent, dim), None
    if layout is Layout.ELEMENTS:
        words = block.bits(values, "the masks of elements")
        values, ends = _count(words), _masked_ends(words, sent, dim)
    flat = numbers.read(block.rest(numbers.size(sent, values), f"{values:,} values of {sent:,} rows"), ends)
    if words is not None:
        packed, flat = flat, np.zeros(sent * dim, np.float32)
        packing.unpack(words, packed, flat)
    return rows_R, flat.reshape(sent, dim)


def encoded_bytes(encoding: int, n_rows: int, dim: int, rows: int | None = None, values: int | None = None) -> int:
    """Returns the size of a block of so many selected rows (None: all) with so many nonzero elements (None: all)."""
    layout, precision = _known(encoding)
    sent = n_rows if rows is None or layout is Layout.DENSE else rows
    present = sent * dim if values is None or layout is not Layout.ELEMENTS else values
    size = padded(NUMBERS[precision].size(sent, present))
    if layout is not Layout.DENSE:
        size += bits_bytes(n_rows)
    if layout is Layout.ELEMENTS:
        size += bits_bytes(sent * dim)
    return size


def cheapest(selected: Selected, precision: str, n_rows: int) -> pb.Encoding:
    """Returns the encoding of the fewest bytes that is at least as precise as "fp32", "fp16" or "int8" (whose scale
    does not pay for rows of one or two elements: those stay fp32). Raises DtypeMismatch."""
    if precision not in NUMBERS:
        raise DtypeMismatch(f"precision {precision!r}: choose one of {sorted(NUMBERS)}")
    sent, dim = selected.grads_RD.shape
    values = packing.count_nonzero(_flat(selected)) if selected.elements else None
    layouts = {Layout.ROWS} | ({Layout.DENSE} if sent == n_rows else set())
    layouts |= {Layout.ELEMENTS} if selected.elements else set()
    fit = [one for one, (layout, name) in ENCODINGS.items() if layout in layouts and name in (precision, "fp32")]
    return min(fit, key=lambda encoding: encoded_bytes(encoding, n_rows, dim, sent, values))


def _known(encoding: int) -> tuple[Layout, str]:
    try:
        return ENCODINGS[cast(pb.Encoding, encoding)]
    except KeyError:
        raise DtypeMismatch(f"wire encoding {encoding}: this version knows {sorted(ENCODINGS)}") from None


def _name(encoding: int) -> str:
    return pb.Encoding.Name(pb.Encoding.ValueType(encoding))


def _flat(selected: Selected) -> Rows:
    return np.ascontiguousarray(selected.grads_RD, np.float32).reshape(-1)


def _bitmap(rows_R: Positions | None, n_rows: int) -> Bytes:
    words = blank_words(n_rows)
    if not packing.set_bits(np.arange(n_rows) if rows_R is None else rows_R, n_rows, words):
        raise InvalidArgument(f"selected rows must ascend, each once, within [0, {n_rows})")
    return bytes_of(words, n_rows)


def _masks(values_N: Rows) -> tuple[Words, Rows]:
    """Returns which values are not zero, and these values."""
    words, packed_N = blank_words(len(values_N)), np.empty_like(values_N)  # memory that is not written to costs nothing
    return words, packed_N[: packing.pack(values_N, words, packed_N)]


def _count(words: Words) -> int:
    return int(np.bitwise_count(words).sum())


def _positions(words: Words) -> Positions:
    rows_R = np.empty(_count(words), np.int64)
    packing.find_bits(words, rows_R)
    return rows_R


def _dense_ends(rows: int, dim: int) -> Ends:
    return lambda: np.arange(1, rows + 1) * dim


def _masked_ends(words: Words, rows: int, dim: int) -> Ends:
    def ends() -> Positions:
        ends_R = np.empty(rows, np.int64)
        packing.ends_of_rows(words, dim, ends_R)
        return ends_R

    return ends
