"""Decisions about all rows below a rank, made at once and carried out when a row is next seen.

A cut (stamp, rank) meets every row of that rank or lower that was last touched before that time, on whatever tier it is
and whenever that is found out: rank and stamp stay until the row is touched, so the verdict does too. What a cut does
to a row (it is gone, it is of half precision) is for the owner to say. Pure, and a function of the log alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kernels import score


class Cuts:
    """A sequence of cuts, as one question: has any of them met this row?"""

    def __init__(self, per_tick: np.uint32) -> None:
        """`per_tick`: of the table's ranking."""
        self._per_tick = per_tick
        self.stamps_C = np.empty(0, np.int64)
        """Rising."""
        self.ranks_C = np.empty(0, np.int64)
        """Falling: a cut that is not later than one as high says nothing."""

    def __bool__(self) -> bool:
        return len(self.stamps_C) > 0

    def copy(self) -> Cuts:
        """As it is now, for another thread."""
        copy = Cuts(self._per_tick)
        copy.stamps_C, copy.ranks_C = self.stamps_C, self.ranks_C
        return copy

    def add(self, stamp: int, highest: int) -> None:
        """Cuts rows of rank `highest` or lower with stamps below `stamp`."""
        if ((self.stamps_C >= stamp) & (self.ranks_C >= highest)).any():
            return
        kept_C = (self.stamps_C > stamp) | (self.ranks_C > highest)
        stamps_C, ranks_C = self.stamps_C[kept_C], self.ranks_C[kept_C]
        at = int(np.searchsorted(stamps_C, stamp))
        self.stamps_C, self.ranks_C = np.insert(stamps_C, at, stamp), np.insert(ranks_C, at, highest)

    def met(self, statistics_N2: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """bool [n]: which rows were cut. statistics uint32 [n, 2] as in `ps.kernels.score`."""
        met_N = np.zeros(len(statistics_N2), np.bool_)
        if self:
            score.met(statistics_N2, self._per_tick, self.stamps_C, self.ranks_C, met_N)
        return met_N

    def select(
        self, statistics_S2: npt.NDArray[np.uint32], marks_S: npt.NDArray[np.uint16], start: int, end: int
    ) -> npt.NDArray[np.int64]:
        """Slots in [start, end) that are used and whose rows were cut."""
        out_N = np.empty(end - start, np.int64)
        found, _ = score.select_met(
            statistics_S2, marks_S, start, end, self._per_tick, self.stamps_C, self.ranks_C, out_N
        )
        return out_N[:found]
