"""Counts how many steps hold each id that has no row in RAM: as soon as it has one, the row is pinned as many times.

So whoever holds ids holds their rows, from when they come into RAM to when they are let go, and nobody looks for them
meanwhile: a write costs the same however many steps are prepared (docs/decisions/0043-untouched-steps.md).
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids
from ps.kernels.index import tally
from ps.kernels.index.secret import SECRET

SMALLEST = 64
NBYTES = 48
"""Bytes that an id takes, about: two to four places of 16 bytes."""
ALL = 1 << 62


class Awaited:
    """The ids of one table that are held and have no row in RAM. The engine thread's."""

    def __init__(self) -> None:
        self._tally = np.zeros((SMALLEST, 2), np.int64)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, ids_N: Ids, counts_N: Ids) -> None:
        """Notes that so many more steps hold each id."""
        needed = 2 * (self._used + len(ids_N))
        if needed > len(self._tally):
            self._resize(1 << (needed - 1).bit_length())
        self._used += int(tally.add(self._tally, SECRET, ids_N, counts_N))

    def take(self, ids_N: Ids, most: int = ALL, out_N: Ids | None = None) -> Ids:
        """Returns how many hold each id, at most so many, and takes them out. `out_N`: int64, where to write it."""
        counts_N = np.empty(len(ids_N), np.int64) if out_N is None else out_N
        counts_N[:] = 0
        if self._used:
            self._used -= int(tally.take(self._tally, SECRET, ids_N, most, counts_N))
            if not self._used and len(self._tally) > SMALLEST:
                self._tally = np.zeros((SMALLEST, 2), np.int64)
        return counts_N

    def _resize(self, places: int) -> None:
        larger = np.zeros((places, 2), np.int64)
        tally.add(larger, SECRET, self._tally[:, 0].copy(), self._tally[:, 1].copy())
        self._tally = larger
