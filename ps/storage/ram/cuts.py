"""Decisions about all rows below a rank, made at once and carried out when a row is next seen.

A cut (stamp, rank) meets every row of that rank or lower that was last touched before that time, on whatever tier it is
and whenever that is found out: rank, stamp and lot stay until the row is touched, so the verdict does too. A cut may be
of some lots only (`ps.kernels.ranking.score`): so a rank that more rows have than are to go is parted. What a cut does
to a row (it is gone, it is of half precision) is for the owner to say. Pure, and a function of the log alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kept import KeptState
from ps.kernels.ranking import cuts, score

NEVER = -1
"""The stamp of a cut that meets no row."""
_ARRAYS = ("stamps_C", "ranks_C", "stamps_LC", "ranks_LC")


class Cuts:
    """A sequence of cuts, as one question: has any of them met this row?"""

    def __init__(self, per_tick: np.uint32) -> None:
        """`per_tick`: of the table's ranking."""
        self._per_tick = per_tick
        self.stamps_C = np.empty(0, np.int64)
        """Rising. Of cuts of all lots."""
        self.ranks_C = np.empty(0, np.int64)
        """Falling: a cut that is not later than one as high says nothing."""
        self.stamps_LC = np.empty((score.LOTS, 0), np.int64)
        """The stamps of cuts of some lots, by lot: NEVER where there is none."""
        self.ranks_LC = np.empty((score.LOTS, 0), np.int64)

    def __bool__(self) -> bool:
        return len(self.stamps_C) > 0 or self.stamps_LC.shape[1] > 0

    def copy(self) -> Cuts:
        """Returns the cuts as they are now, for another thread."""
        copy = Cuts(self._per_tick)
        copy.stamps_C, copy.ranks_C = self.stamps_C, self.ranks_C
        copy.stamps_LC, copy.ranks_LC = self.stamps_LC, self.ranks_LC
        return copy

    def add(self, stamp: int, highest: int, lots_L: npt.NDArray[np.bool_] | None = None) -> None:
        """Cuts rows of rank `highest` or lower with stamps below `stamp`; of these lots only, if they are given."""
        if lots_L is not None and not lots_L.all():
            new_L1 = np.where(lots_L, stamp, NEVER)[:, None]
            self._keep(np.hstack([self.stamps_LC, new_L1]), np.hstack([self.ranks_LC, np.full_like(new_L1, highest)]))
            return
        if ((self.stamps_C >= stamp) & (self.ranks_C >= highest)).any():
            return
        kept_C = (self.stamps_C > stamp) | (self.ranks_C > highest)
        stamps_C, ranks_C = self.stamps_C[kept_C], self.ranks_C[kept_C]
        at = int(np.searchsorted(stamps_C, stamp))
        self.stamps_C, self.ranks_C = np.insert(stamps_C, at, stamp), np.insert(ranks_C, at, highest)
        self._keep(self.stamps_LC, self.ranks_LC)

    def met(self, statistics_N2: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Returns which rows were cut, bool [n]. statistics: uint32 [n, 2] as in `ps.kernels.ranking.score`."""
        met_N = np.zeros(len(statistics_N2), np.bool_)
        if self:
            cuts.met(statistics_N2, self._per_tick, *self._arrays, met_N)
        return met_N

    def select(
        self, statistics_S2: npt.NDArray[np.uint32], marks_S: npt.NDArray[np.uint16], start: int, end: int
    ) -> npt.NDArray[np.int64]:
        """Returns the slots in [start, end) that are used and whose rows were cut."""
        out_N = np.empty(end - start, np.int64)
        found, _ = cuts.select_met(statistics_S2, marks_S, start, end, self._per_tick, *self._arrays, out_N)
        return out_N[:found]

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {name: getattr(self, name) for name in _ARRAYS}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        for name in _ARRAYS:
            setattr(self, name, state[name].copy())

    @property
    def _arrays(self) -> tuple[npt.NDArray[np.int64], ...]:
        return self.stamps_C, self.ranks_C, self.stamps_LC, self.ranks_LC

    def _keep(self, stamps_LC: npt.NDArray[np.int64], ranks_LC: npt.NDArray[np.int64]) -> None:
        """Keeps those cuts of lots that say more than every cut of all lots and than each other."""
        stamps_LC, columns = stamps_LC.copy(), stamps_LC.shape[1]  # another thread may read those that were
        for c in range(columns):
            stamp_L1, rank_L1 = stamps_LC[:, c, None], ranks_LC[:, c, None]
            said_L = ((self.stamps_C >= stamp_L1) & (self.ranks_C >= rank_L1)).any(axis=1)
            others_C = np.arange(columns) != c
            said_L |= ((stamps_LC >= stamp_L1) & (ranks_LC >= rank_L1))[:, others_C].any(axis=1)
            stamps_LC[said_L, c] = NEVER  # of two that say the same the later one stays
        order_LC = np.argsort(stamps_LC == NEVER, axis=1, kind="stable")
        most = int((stamps_LC != NEVER).sum(axis=1).max(initial=0))
        self.stamps_LC = np.ascontiguousarray(np.take_along_axis(stamps_LC, order_LC, 1)[:, :most])
        self.ranks_LC = np.ascontiguousarray(np.take_along_axis(ranks_LC, order_LC, 1)[:, :most])
