"""Ascending ids as gaps in Rice's code, bit by bit with Python's integers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ps.arrays import Ids

GROUP = 128


def encode(ids_N: Ids) -> bytes:
    """The groups of ids [n], n at least 1. Raises ValueError where they do not ascend."""
    ids = ids_N.tolist()
    gaps = [here - before - 1 for before, here in pairwise(ids)]
    if any(gap < 0 for gap in gaps):
        raise ValueError("unsorted")
    return b"".join(_group(gaps[start : start + GROUP]) for start in range(0, len(gaps), GROUP))


def decode(data: bytes, first: int, n: int) -> Ids:
    """The n ids, the first of which is `first`. Raises ValueError."""
    ids, rest = [first], data
    while len(ids) < n:
        if not rest:
            raise ValueError("short")
        k, bits = rest[0], _bits(rest[1:])
        if k > 63:
            raise ValueError("no such parameter")
        try:
            lows = [sum(next(bits) << j for j in range(k)) for _ in range(min(GROUP, n - len(ids)))]
            highs = [_zeros(bits) for _ in lows]
        except (StopIteration, RuntimeError):
            raise ValueError("short") from None
        for low, high in zip(lows, highs, strict=True):
            ids.append(ids[-1] + (high << k | low) + 1)
        if ids[-1] >= 2**63:
            raise ValueError("an id too large")
        used = (sum(highs) + len(lows) * (k + 1) + 7) // 8
        if any(list(bits)[: (8 * used - sum(highs) - len(lows) * (k + 1))]):
            raise ValueError("bits are left over")
        rest = rest[1 + used :]
    if rest:
        raise ValueError("bytes are left over")
    return np.array(ids, np.int64)


def _group(gaps: list[int]) -> bytes:
    """By the k of the fewest bits, from the bits of the mean downwards until it gets no better."""
    k = min(63, (sum(gaps) // len(gaps)).bit_length())
    while k and _cost(gaps, k - 1) < _cost(gaps, k):
        k -= 1
    bits = at = 0
    for gap in gaps:
        bits |= (gap & ((1 << k) - 1)) << at
        at += k
    for gap in gaps:
        at += gap >> k
        bits |= 1 << at
        at += 1
    return bytes([k]) + bits.to_bytes((at + 7) // 8, "little")


def _cost(gaps: list[int], k: int) -> int:
    return sum(k + 1 + (gap >> k) for gap in gaps)


def _bits(data: bytes) -> Iterator[int]:
    return (byte >> j & 1 for byte in data for j in range(8))


def _zeros(bits: Iterator[int]) -> int:
    zeros = 0
    while not next(bits):
        zeros += 1
    return zeros
