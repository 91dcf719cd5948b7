"""`ps.kernels.index.bloom`, in numpy. All integers: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Words
from ps.kernels.reference.index.hashing import mix64


def _places(words_W: Words, ids_N: Ids) -> tuple[Ids, Words]:
    """(words [n, 8], the bit of each that is an id's)."""
    hashes_N = mix64(ids_N.view(np.uint64))
    blocks_N = ((hashes_N & np.uint64(0xFFFFFFFF)) * np.uint64(len(words_W) // 8)) >> np.uint64(32)
    words_N8 = blocks_N.astype(np.int64)[:, None] * 8 + np.arange(8)
    numbers_N8 = mix64(hashes_N + np.uint64(0x9E3779B97F4A7C15))[:, None] >> (
        np.uint64(6) * np.arange(8, dtype=np.uint64)
    )
    return words_N8, np.uint64(1) << (numbers_N8 & np.uint64(63))


def add(words_W: Words, ids_N: Ids) -> None:
    """Sets the eight bits of each id."""
    words_N8, bits_N8 = _places(words_W, ids_N)
    np.bitwise_or.at(words_W, words_N8, bits_N8)


def may_contain(words_W: Words, ids_N: Ids, found_N: npt.NDArray[np.bool_]) -> None:
    """found[i] = True where all eight bits are set; what is True already stays."""
    words_N8, bits_N8 = _places(words_W, ids_N)
    found_N |= ((words_W[words_N8] & bits_N8) != 0).all(axis=1)
