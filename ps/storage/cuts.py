"""Decisions about all rows below a rank, made at once and carried out when a row is next seen.

A cut (tick, rank) meets every row of that rank or lower that was last touched before the tick, on whatever tier it is
and whenever that is found out: rank and stamp stay until the row is touched, so the verdict does too. What a cut does
to a row (it is gone, it is of half precision) is for the owner to say. Pure, and a function of the log alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kernels import score


class Cuts:
    """A sequence of cuts, as one question: has any of them met this row?"""

    def __init__(self) -> None:
        self.ticks_C = np.empty(0, np.int64)
        """Rising."""
        self.ranks_C = np.empty(0, np.int64)
        """Falling: a cut that is not later than one as high says nothing."""

    def __bool__(self) -> bool:
        return len(self.ticks_C) > 0

    def copy(self) -> Cuts:
        """As it is now, for another thread."""
        copy = Cuts()
        copy.ticks_C, copy.ranks_C = self.ticks_C, self.ranks_C
        return copy

    def add(self, tick: int, highest: int) -> None:
        """Cuts rows of rank `highest` or lower with stamps below `tick`."""
        if ((self.ticks_C >= tick) & (self.ranks_C >= highest)).any():
            return
        kept_C = (self.ticks_C > tick) | (self.ranks_C > highest)
        ticks_C, ranks_C = self.ticks_C[kept_C], self.ranks_C[kept_C]
        at = int(np.searchsorted(ticks_C, tick))
        self.ticks_C, self.ranks_C = np.insert(ticks_C, at, tick), np.insert(ranks_C, at, highest)

    def met(self, statistics_N2: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """bool [n]: which rows were cut. statistics uint32 [n, 2] as in `ps.kernels.score`."""
        met_N = np.zeros(len(statistics_N2), np.bool_)
        if self:
            score.met(statistics_N2, self.ticks_C, self.ranks_C, met_N)
        return met_N
