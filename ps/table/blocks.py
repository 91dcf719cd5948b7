"""Arrays by id beside blocks of gradients or values, which are those of consecutive ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Rows, Slots


def spread(values_R: Rows, rows_R: Slots, n: int) -> Rows:
    """Returns float32 [n] with the values in these positions, and 0 elsewhere."""
    out_N = np.zeros(n, np.float32)
    out_N[rows_R] = values_R
    return out_N


def counts_at(counts_N: Counts | None, positions_M: Slots) -> Counts:
    """Returns how often the ids at these positions occur, once by default."""
    return np.ones(len(positions_M), np.uint32) if counts_N is None else counts_N[positions_M]


def parts_of(by_slot_N: npt.NDArray[Any], blocks: Sequence[Rows]) -> Iterator[tuple[npt.NDArray[Any], Rows]]:
    """Yields the blocks, each with the part of an array that belongs to its slots."""
    start = 0
    for block_ND in blocks:
        yield by_slot_N[start : start + len(block_ND)], block_ND
        start += len(block_ND)
