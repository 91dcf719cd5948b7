"""How many rows of a table have which rank, on whatever tier: quantiles without looking at a row.

`ps.kernels.score` has the arithmetic of scores and ranks. Time is counted in the table's own pushes, and in decisions
that part the rows touched before from those touched later. All of that is in the log, so the same pushes give the same
ranking on every shard and after every restart.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kernels import score

BEHIND = score.RANKS // 4
"""Ticks that `first` lags behind the clock. A score of 1 is 127 octaves above rank 0, so that rows are told apart until
they have been left alone for 190 half-lives, and scores as large as 2**65."""


EVERY_RANK = 1 << 62
"""No row has a higher one."""
EPOCHS = 16
"""Rows expire with the others of their epoch: to a sixteenth of the time that they have."""


class Ranking:
    """Counts by rank, and the clock that scores decay by."""

    def __init__(self, half_life_pushes: int, expire_after_pushes: int | None = None) -> None:
        self.per_tick = score.pushes_per_tick(half_life_pushes)
        self._pushes_per_epoch = None if expire_after_pushes is None else max(1, expire_after_pushes // EPOCHS)
        self._epoch_pushes = 0  # since the last epoch began
        self.decay_T = score.decay_table()
        self.counts_R = np.zeros(score.RANKS, np.int64)
        epochs = 0 if expire_after_pushes is None else EPOCHS
        self.counts_ER = np.zeros((epochs + 1, score.RANKS), np.int64)
        """The same by age, where rows expire; see `ps.kernels.score`."""
        self.epochs_E = np.zeros(epochs, np.int64)
        self.first = 0
        """The rank counted in counts_R[0], with all below it."""
        self.now = 0
        """What a row that is touched is stamped with."""
        self.total = 0
        """Rows counted."""

    def count(self, statistics_N2: npt.NDArray[np.uint32], change: int) -> None:
        """Counts rows in (1) or out (-1)."""
        score.count(statistics_N2, change, self.per_tick, self.counts_R, self.counts_ER, self.epochs_E, self.first)
        self.total += change * len(statistics_N2)

    def forget(self, n: int) -> None:
        """Counts out rows whose statistics are lost: of the lowest ranks, where rows on disk are, the oldest first."""
        left_R = np.diff(np.maximum(np.cumsum(self.counts_R) - n, 0), prepend=0)
        aged_ER = np.maximum(np.cumsum(self.counts_ER, axis=0) - (self.counts_R - left_R), 0)
        self.counts_ER[:] = np.diff(aged_ER, axis=0, prepend=0)
        self.counts_R = left_R
        self.total = int(left_R.sum())

    @property
    def tick(self) -> int:
        """The clock that scores decay by."""
        return self.now // int(self.per_tick)

    def advance(self) -> bool:
        """A push has ended, or rows are about to be dropped: whoever is touched from now on is stamped otherwise than
        all before. Whether a tick has passed. Ranks rise with ticks: every so often the lowest are counted as one."""
        before = self.tick
        self.now += 1
        if self.tick - BEHIND - self.first >= score.HALF_LIFE:
            self._slide(score.HALF_LIFE)
        return self.tick > before

    def expire(self) -> tuple[int, int]:
        """A push has ended; if an epoch has with it, counts out the rows last touched before the oldest one that is
        kept. Returns the stamp that the others have, or a higher one, and how many rows there were."""
        if self._pushes_per_epoch is None:
            return 0, 0
        self._epoch_pushes += 1
        if self._epoch_pushes < self._pushes_per_epoch:
            return 0, 0
        self._epoch_pushes = 0
        kept_from = int(self.epochs_E[0])
        expired = int(self.counts_ER[0].sum())
        self.counts_R -= self.counts_ER[0]
        self.total -= expired
        self.counts_ER[:-1] = self.counts_ER[1:]
        self.counts_ER[-1] = 0
        self.epochs_E[:-1] = self.epochs_E[1:]
        self.epochs_E[-1] = self.now
        return kept_from, expired

    def highest_of_others(self, keep: int, most: int) -> int:
        """The rank up to which rows go so that at least `keep` stay; fewer, if `most` would not hold otherwise."""
        at = self.quantile(keep)
        left = int(self.counts_R[max(at - self.first, 0) :].sum())
        highest = at - 1 if left <= most else at
        return highest if highest < self.first + score.RANKS - 1 else EVERY_RANK

    def drop(self, highest: int) -> int:
        """Counts out all rows of rank `highest` or lower; how many."""
        upto = min(max(highest - self.first + 1, 0), score.RANKS)
        dropped = int(self.counts_R[:upto].sum())
        self.counts_R[:upto] = 0
        self.counts_ER[:, :upto] = 0
        self.total -= dropped
        return dropped

    def decayed(self, scores_N: npt.NDArray[np.float32], stamps_N: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """Scores as of now."""
        ages_N = self.tick - stamps_N.astype(np.int64) // int(self.per_tick)
        factors_N = np.where(ages_N < len(self.decay_T), self.decay_T[np.minimum(ages_N, len(self.decay_T) - 1)], 0)
        return (scores_N * factors_N).astype(np.float32)

    def quantile(self, keep: int) -> int:
        """The rank R with: fewer than `keep` rows are above R, and at least `keep` are at R or above it.

        So rows at R and below may go as long as more than `keep` are left. RANKS and more if keep <= 0.
        """
        if keep <= 0:
            return self.first + score.RANKS
        from_top_R = np.cumsum(self.counts_R[::-1])
        position = int(np.searchsorted(from_top_R, keep))
        return self.first + max(score.RANKS - 1 - position, 0)

    def below_most(self, n: int) -> int:
        """The rank above which the n most important rows are. Those at the border that are alike are in or out
        together, whichever brings their number nearer to n. Below every rank if n are all."""
        if n >= self.total:
            return -EVERY_RANK
        border = self.quantile(n + 1)
        place = border - self.first
        outside = int(self.counts_R[place + 1 :].sum())
        if outside + int(self.counts_R[place]) - n >= n - outside:
            return border
        return border - 1 if place else -EVERY_RANK

    def _slide(self, by: int) -> None:
        self.counts_R = _slid(self.counts_R, by)
        for counts_R in self.counts_ER:
            counts_R[:] = _slid(counts_R, by)
        self.first += by


def _slid(counts_R: npt.NDArray[np.int64], by: int) -> npt.NDArray[np.int64]:
    moved_R = np.zeros_like(counts_R)
    moved_R[:-by] = counts_R[by:]
    moved_R[0] = counts_R[: by + 1].sum()
    return moved_R
