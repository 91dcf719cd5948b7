"""Ascending ids as the gaps between them, in Rice's code (Rice and Plaunt 1971).

A gap is id - the id before - 1, a number below 2**64. GROUP gaps, in the last group fewer, share a parameter k:

    group = byte(k) bits      k in [0, 63]; bits from the lowest of the first byte on, zeros up to a whole byte
    bits  = low* high*        one each for a gap; low: its k lowest bits; high: gap >> k zeros, and a one

The gaps of random ids are geometric, for which no code of whole bits is shorter than Rice's with a fitting k; for a
step's ids of 10**7 it takes 8.2 bits where entropy is 8.1. The best k is not above the bits of the mean gap: one more
costs a bit a gap, and saves less than half a zero. So a gap never takes more than those bits and two, in the mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids
from ps.kernels.bits import lowest_bit
from ps.kernels.kernel import helper, kernel
from ps.kernels.words import load64, store64

I64 = np.int64
GROUP = 128
MARGIN = 24
"""Bytes beyond the end that must be there: bits are read and written by words."""
UNSORTED, SHORT, LONG, TOO_LARGE = I64(-1), I64(-2), I64(-3), I64(-4)
"""What is wrong: ids do not ascend strictly; the bytes end early; bytes are left over; an id is out of the range of
int64, or a k above 63."""

_ZERO, _ONE, _63 = np.uint64(0), np.uint64(1), np.uint64(63)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def most_bytes(n: int) -> int:
    """What `encode` may write for n ids, with its margin: not 72 bits a gap, and two bytes a group."""
    return 9 * n + 2 * (n // GROUP + 1) + MARGIN


@helper()
def _code_bits(gaps_G: npt.NDArray[np.uint64], k: np.uint64) -> np.uint64:
    """Bits of a group by that k."""
    total = np.uint64(len(gaps_G)) * (k + _ONE)
    for gap in gaps_G:
        total += gap >> k
    return total


@helper()
def _parameter(gaps_G: npt.NDArray[np.uint64]) -> np.uint64:
    """The k of the fewest bits, from the bits of the mean downwards until it gets no better."""
    total = _ZERO
    for gap in gaps_G:
        total += gap
    mean = total // np.uint64(len(gaps_G))
    k = _ZERO
    while k < _63 and mean >> k:
        k += _ONE
    best = _code_bits(gaps_G, k)
    while k:
        bits = _code_bits(gaps_G, k - _ONE)
        if bits >= best:
            break
        best = bits
        k -= _ONE
    return k


@helper()
def _write(gaps_G: npt.NDArray[np.uint64], k: np.uint64, out: Bytes, at: np.int64) -> np.int64:
    """The bits of a group from byte `at` on, a word at a time; the byte after them."""
    low, width = (_ONE << k) - _ONE, I64(k)
    word, filled = _ZERO, I64(0)
    for gap in gaps_G:
        part = gap & low
        word |= part << np.uint64(filled)
        filled += width
        if filled >= 64:
            store64(out, at, word)
            at += 8
            filled -= 64
            word = (part >> np.uint64(width - filled - 1)) >> _ONE if width else _ZERO
    for gap in gaps_G:
        filled += I64(gap >> k)
        if filled >= 64:
            store64(out, at, word)
            at += 8 * (filled >> 6)  # zeros are there already
            filled &= 63
            word = _ZERO
        word |= _ONE << np.uint64(filled)
        filled += 1
    if filled == 64:
        store64(out, at, word)
        return at + 8
    store64(out, at, word)
    return at + ((filled + 7) >> 3)


@kernel(either="ids_N")
def encode(ids_N: Ids, out: Bytes) -> np.int64:
    """The groups of ids [n], n at least 1, the first of which is known to the reader, to `out`, zeros of most_bytes(n).
    How many bytes that are, or UNSORTED."""
    gaps_G = np.empty(GROUP, np.uint64)
    at = I64(0)
    for start in range(1, len(ids_N), GROUP):
        n = min(GROUP, len(ids_N) - start)
        here_G, before_G = ids_N[start : start + n], ids_N[start - 1 : start - 1 + n]
        unsorted = I64(0)
        for i in range(n):
            unsorted |= I64(here_G[i] <= before_G[i])
            gaps_G[i] = np.uint64(here_G[i] - before_G[i]) - _ONE
        if unsorted:
            return UNSORTED
        k = _parameter(gaps_G[:n])
        out[at] = np.uint8(k)
        at = _write(gaps_G[:n], k, out, at + 1)
    return at


@helper()
def _read_high(data: Bytes, bit: int, end: int, gaps_G: npt.NDArray[np.uint64]) -> np.int64:
    """gaps = the zeros before each one, from `bit` on. The bit after the last one, or SHORT if that is beyond `end`."""
    byte, before = bit >> 3, bit - 1
    word = load64(data, byte) & (_ALL << np.uint64(bit & 7))
    for i in range(len(gaps_G)):
        while not word:
            byte += 8
            if 8 * byte >= end:
                return SHORT
            word = load64(data, byte)
        here = 8 * byte + lowest_bit(word)
        word &= word - _ONE
        gaps_G[i] = np.uint64(here - before - 1)
        before = here
    return I64(before + 1)


@helper()
def _add_low(data: Bytes, bit: np.int64, k: np.uint64, gaps_G: npt.NDArray[np.uint64]) -> bool:
    """gaps = gaps << k | the next k bits. Whether all are below 2**64."""
    low, width, highest = (_ONE << k) - _ONE, I64(k), _ZERO
    for i in range(len(gaps_G)):
        byte, odd = bit >> 3, np.uint64(bit & 7)
        part = (load64(data, byte) >> odd) | ((np.uint64(data[byte + 8]) << _ONE) << (_63 - odd))
        highest |= gaps_G[i]
        gaps_G[i] = (gaps_G[i] << k) | (part & low)
        bit += width
    return bool(highest <= _ALL >> k)


@kernel()
def decode(data: Bytes, size: int, first: int, out_N: Ids) -> np.int64:
    """out = the ids, the first of which is `first`. Of data the first `size` bytes are meant, MARGIN zeros follow.
    0, or SHORT, LONG, TOO_LARGE; then what out holds means nothing. For any bytes at all."""
    out_N[0] = before = I64(first)
    gaps = np.empty(GROUP, np.uint64)
    at, end = 0, 8 * size
    for start in range(1, len(out_N), GROUP):
        gaps_G, out_G = gaps[: len(out_N) - start], out_N[start : start + GROUP]
        if at >= size:
            return SHORT
        k = np.uint64(data[at])
        if k > _63:
            return TOO_LARGE
        low = 8 * (at + 1)
        high = low + len(gaps_G) * I64(k)
        if high + len(gaps_G) > end:
            return SHORT
        high = _read_high(data, high, end, gaps_G)
        if high == SHORT:
            return SHORT
        if not _add_low(data, low, k, gaps_G):
            return TOO_LARGE
        for i in range(len(gaps_G)):
            here = I64(np.uint64(before) + gaps_G[i] + _ONE)
            if here <= before:
                return TOO_LARGE
            out_G[i] = before = here
        at = (high + 7) >> 3
        if high & 7 and data[at - 1] >> np.uint8(high & 7):
            return LONG
    return I64(0) if at == size else LONG
