"""What a step's bytes cannot go below, for `wirebytes`: the arithmetic beside the measured.

    ids         log2 C(N, U) bits         U of N ids, every set as likely: which of them are popular is not known
    counts      U H(counts) bits          entropy of how often each occurs
    exists      U H(share) bits           which of the U ids have a row
    rows        b U D bytes               b bytes a number, as asked for
    gradients   log2 C(U, R) bits + b R D bytes      R of the rows, each element of those
                log2 C(U D, V) bits + b V bytes      V single elements

Heads and framing are 0 in it. It is a bound for this selection at this precision; it says nothing of sending less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.v1 import embedding_pb2 as pb
from ps.wire import encodings
from ps.wire.block import bits_bytes

Whole = npt.NDArray[np.integer[Any]]

WIDTH = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes a number; the scales of int8 are not counted."""


@dataclass(frozen=True)
class Sent:
    """What one push has selected, read from its bytes."""

    rows: int
    values: int
    by_elements: bool
    number_bytes: int
    """Bytes of all values."""


def sent(shape: pb.PushedTable, body: bytes) -> Sent:
    """Reads what a push of one table with a selection sends. Elements whose fp16 is 0 are counted: they were sent."""
    parts, start = [], 0
    for block in shape.blocks:
        parts.append(_sent(shape, block.encoding, body[start : start + block.bytes]))
        start += block.bytes
    return Sent(
        sum(part.rows for part in parts),
        sum(part.values for part in parts),
        any(part.by_elements for part in parts),
        sum(part.number_bytes for part in parts),
    )


def _sent(shape: pb.PushedTable, encoding: pb.Encoding, block: bytes) -> Sent:
    layout, precision = encodings.ENCODINGS[encoding]
    rows_R, _ = encodings.decode(block, encoding, shape.rows, shape.dim)
    rows, width = shape.rows if rows_R is None else len(rows_R), WIDTH[precision]
    if layout is not encodings.Layout.ELEMENTS:
        return Sent(rows, rows * shape.dim, False, rows * shape.dim * width)
    scales = 4 * rows if precision == "int8" else 0
    values = (len(block) - bits_bytes(shape.rows) - bits_bytes(rows * shape.dim) - scales) // width
    return Sent(rows, values, True, values * width)


def gradients_bound(selected: Sent, unique: int, dim: int) -> float:
    """Returns the least bytes of a push alone."""
    places, chosen = (unique * dim, selected.values) if selected.by_elements else (unique, selected.rows)
    return choice_bytes(places, chosen) + selected.number_bytes


def reads_bound(total_ids: int, counts_U: Whole, exists_U: npt.NDArray[np.bool_], rows: int) -> float:
    """Returns the least bytes of prepare and pull, with `rows` bytes of numbers."""
    unique = len(counts_U)
    flags = choice_bytes(unique, int(exists_U.sum()))
    return choice_bytes(total_ids, unique) + _entropy_bytes(counts_U) + flags + rows


def choice_bytes(n: int, k: int) -> float:
    """Returns log2 C(n, k) / 8."""
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2) / 8


def _entropy_bytes(values_N: Whole) -> float:
    counts = np.unique(values_N, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(values_N))).sum() / 8)
