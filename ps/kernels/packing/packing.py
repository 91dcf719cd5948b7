"""Selected rows and elements as bits, and the elements packed; 8-bit numbers with a scale for each row.

Bits are counted from the lowest of the first word on. `words` are uint64 [ceil(n / 64)]; bits beyond the n'th are zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Positions, Values, Words
from ps.kernels.bits import count_bits, float_bits, lowest_bit, nonzero64
from ps.kernels.kernel import helper, kernel

Items = npt.NDArray[np.int8]

LEVELS = np.float32(127)
"""The largest of the 8-bit numbers; they are symmetric, -128 is not used."""
LEAST_SCALE = np.float32(2.0**-126)
"""The scale of a row that is zero, or so small that its own scale would not be a normal number."""
SCALE_LIMIT = np.float32(2.0**121)
"""Scales are less: 127 of it is finite still."""

I32 = np.int32
_MAGNITUDE = I32(0x7FFFFFFF)
_ONE = np.uint64(1)
_ROUND = np.float32(3 << 22)
"""Added to a float32 below 2**21, it leaves the nearest integer in the low bits, ties to even."""
_BLOCK = 1 << 12


@kernel(either="rows_R")
def set_bits(rows_R: Positions, n: int, words: Words) -> bool:
    """Bit rows[i] of words, which are zero, is set. False if rows do not ascend strictly within [0, n): then some are
    not set."""
    before = -1
    for row in rows_R:
        if row <= before or row >= n:
            return False
        before = row
        words[row >> 6] |= _ONE << np.uint64(row & 63)
    return True


@kernel()
def find_bits(words: Words, out_R: Positions) -> None:
    """Which bits are set, ascending; out has room for just those."""
    found = 0
    for w in range(len(words)):
        word = words[w]
        while word:
            out_R[found] = w * 64 + lowest_bit(word)
            found += 1
            word &= word - _ONE


@helper()
def _nonzero(values_N: Values, start: int) -> np.uint64:
    """A bit for each of the next 64 values, or those that there are."""
    if start + 64 <= len(values_N):
        whole: np.uint64 = nonzero64(values_N, start)
        return whole
    word = np.uint64(0)
    for j in range(start, len(values_N)):
        word |= np.uint64(1 if values_N[j] != 0 else 0) << np.uint64(j - start)
    return word


@kernel(either="values_N")
def count_nonzero(values_N: Values) -> int:
    """How many are neither 0 nor -0; NaN is not."""
    count = 0
    for start in range(0, len(values_N), 64):
        count += count_bits(_nonzero(values_N, start))
    return count


@kernel(either="values_N")
def all_below(values_N: Values, limit: np.float32) -> bool:
    """Whether the magnitude of each is less than `limit`; that of NaN is not."""
    bits_N, largest = values_N.view(np.int32), float_bits(limit)
    for start in range(0, len(bits_N), _BLOCK):
        block = bits_N[start : start + _BLOCK]
        here = I32(0)
        for i in range(len(block)):
            here = max(here, block[i] & _MAGNITUDE)
        if here >= largest:
            return False
    return True


@kernel(either="values_N")
def mask(values_N: Values, least: np.float32, out_N: Values) -> None:
    """out = values, but 0 where the magnitude is less than `least`; NaN stays."""
    bits_N, out_bits_N, smallest = values_N.view(np.int32), out_N.view(np.int32), float_bits(least)
    for i in range(len(bits_N)):
        out_bits_N[i] = bits_N[i] if bits_N[i] & _MAGNITUDE >= smallest else I32(0)


@kernel(either="values_N")
def pack(values_N: Values, words: Words, out_N: Values) -> int:
    """Bit i of words = whether values[i] is neither 0 nor -0; those values are packed into the front of out. How many
    they are."""
    found = 0
    for w in range(len(words)):
        start = w * 64
        word = _nonzero(values_N, start)
        words[w] = word
        while word:
            out_N[found] = values_N[start + lowest_bit(word)]
            found += 1
            word &= word - _ONE
    return found


@kernel(either="values_V")
def unpack(words: Words, values_V: Values, out_N: Values) -> None:
    """out[i] = the next of the values where bit i is set; others stay. As many bits are set as there are values."""
    found = 0
    for w in range(len(words)):
        word = words[w]
        while word:
            out_N[w * 64 + lowest_bit(word)] = values_V[found]
            found += 1
            word &= word - _ONE


@kernel()
def ends_of_rows(words: Words, dim: int, out_R: Positions) -> None:
    """out[i] = how many bits are set before bit (i + 1) * dim: where the packed values of row i end."""
    w, before = 0, 0
    for i in range(len(out_R)):
        end = (i + 1) * dim
        while w < end >> 6:
            before += count_bits(words[w])
            w += 1
        partial = np.uint64(end & 63)
        out_R[i] = before + (count_bits(words[w] & ((_ONE << partial) - _ONE)) if partial else 0)


@kernel(error_model="numpy", either="values_V")
def quantize(values_V: Values, ends_R: Positions, scales_R: Values, out_V: Items) -> None:
    """Row i = values[ends[i - 1] : ends[i]]; scales[i] = max(its largest magnitude / 127, 2**-126); out = values /
    scale, rounded to nearest, ties to even. Magnitudes are less than 2**127."""
    start = 0
    for i in range(len(ends_R)):
        row, out = values_V[start : ends_R[i]], out_V[start : ends_R[i]]
        largest = np.float32(0)
        for j in range(len(row)):
            magnitude = abs(row[j])
            largest = magnitude if magnitude > largest else largest
        scale = max(largest / LEVELS, LEAST_SCALE)
        scales_R[i] = scale
        factor = np.float32(1) / scale
        for j in range(len(row)):
            out[j] = np.int8(float_bits(row[j] * factor + _ROUND))
        start = ends_R[i]


@kernel(read_only=("items_V", "scales_R"))
def dequantize(items_V: Items, ends_R: Positions, scales_R: Values, out_V: Values) -> int:
    """out = items * scale, row by row. The first row that `quantize` cannot have made, of a scale out of
    [2**-126, 2**121) or with an item of -128; -1 if there is none."""
    start, wrong = 0, -1
    for i in range(len(ends_R)):
        items, out, scale = items_V[start : ends_R[i]], out_V[start : ends_R[i]], scales_R[i]
        least = np.int8(0)
        for j in range(len(items)):
            out[j] = np.float32(items[j]) * scale
            least = min(least, items[j])
        sound = scale >= LEAST_SCALE and scale < SCALE_LIMIT and least > np.int8(-128)
        if wrong < 0 and not sound:
            wrong = i
        start = ends_R[i]
    return wrong
