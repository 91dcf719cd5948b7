"""Counts how many rows of a table have which rank, on any tier, which gives quantiles without looking at a row.

`ps.kernels.ranking.score` has the arithmetic of scores and ranks. The clock by which scores decay counts what is in the
log: the table's own pushes if the half-life is given in pushes, otherwise the turnover: how many rows have come, as a
share of how many there is room for. So the same pushes give the same ranking on every shard and after every restart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Slots
from ps.errors import ConfigError, ResourceExhausted
from ps.kept import KeptState, overwrite
from ps.kernels.ranking import score
from ps.policy import eviction
from ps.runtime.memory import sparse_zeros

BEHIND = score.RANKS // 4
"""How many ticks `first` lags behind the clock. A score of 1 is 127 octaves above rank 0, so rows have different ranks
until they have not been used for 190 half-lives, and scores up to 2**65 have different ranks."""


EVERY_RANK = 1 << 62
"""A rank that no row exceeds."""
EPOCHS = 16
"""The time after which rows expire is divided into so many epochs; rows of an epoch expire together."""
LAST_STAMP = (1 << 32) - (1 << 20)
"""The last stamp at which a write may begin: stamps have 32 bits, and writes under way, and what follows them, need
room to end."""


def ranking_bytes(expire_after_pushes: int | None) -> int:
    """Returns the bytes of one table's counts by rank, and by age where rows expire, without the counts by lot."""
    return 8 * score.RANKS * (1 if expire_after_pushes is None else EPOCHS + 2)


_NUMBERS = ("first", "now", "pushes", "sealed", "total")
"""The attributes of a ranking that are saved as they are, beside its counts."""


class Cut(NamedTuple):
    """Which rows are dropped: those of rank `highest` or lower, and, of the rows of rank `border` or lower, those with
    these lots."""

    highest: int
    border: int
    lots_L: npt.NDArray[np.bool_]


class Ranking:
    """Counts of rows by rank, and the clock by which scores decay."""

    def __init__(
        self, half_life_pushes: int | None, expire_after_pushes: int | None = None, parted: bool = False
    ) -> None:
        """half_life_pushes: None is by turnover. parted: whether rows may be cut by lot, and so are counted by lot."""
        self.by_turnover = half_life_pushes is None
        self.per_tick = score.stamps_per_tick(half_life_pushes)
        self._turned = 0.0  # since the last tick, in ticks
        self._pushes_per_epoch = None if expire_after_pushes is None else max(1, expire_after_pushes // EPOCHS)
        self._epoch_pushes = 0  # since the last epoch began
        self.decay_T = score.decay_table()
        self.counts_R = np.zeros(score.RANKS, np.int64)
        epochs = 0 if expire_after_pushes is None else EPOCHS
        self.counts_ER = np.zeros((epochs + 1 if epochs else 0, score.RANKS), np.int64)
        """Counts by rank and age, where rows expire; see `ps.kernels.ranking.score`."""
        self.lots_ERL = sparse_zeros((epochs + 1 if parted else 0, score.RANKS, score.LOTS), np.int32)
        """Counts by rank, age and lot, where rows may be evicted. Ranks without a row take no memory, because nothing
        is written there."""
        self.counted_lots = self.lots_ERL if parted else None
        """`lots_ERL` for kernels that count rows; None if rows are not counted by lot."""
        self.epochs_E = np.zeros(epochs, np.int64)
        self.first = 0
        """The rank whose rows counts_R[0] counts, with all ranks below it."""
        self.now = 0
        """The stamp of a row that is touched now."""
        self.pushes = 0
        """How many pushes the clock has counted."""
        self.sealed = True
        """Whether no row has been touched at the present time of the clock."""
        self.total = 0
        """How many rows are counted."""

    def check_time(self, table: str) -> None:
        """Raises ResourceExhausted, before a write, if the clock is at its end."""
        if self.now >= LAST_STAMP:
            raise ResourceExhausted(
                f"table {table!r}: its clock shows {self.now:,}, and rows are stamped with 32 bits: export it, drop it "
                "and create it again"
            )

    def count(self, statistics_N2: npt.NDArray[np.uint32], change: int) -> None:
        """Adds rows to the counts (1) or subtracts them (-1)."""
        tallies = (self.counts_R, self.counts_ER, self.counted_lots, self.epochs_E, self.first)
        score.count(statistics_N2, change, self.per_tick, *tallies)
        self.total += change * len(statistics_N2)

    def forget(self, n: int) -> None:
        """Subtracts rows whose statistics are lost from the counts: from the lowest ranks, where rows on disk are, the
        oldest first."""
        left_R = np.diff(np.maximum(np.cumsum(self.counts_R) - n, 0), prepend=0)
        aged_ER = np.maximum(np.cumsum(self.counts_ER, axis=0) - (self.counts_R - left_R), 0)
        self.counts_ER[:] = np.diff(aged_ER, axis=0, prepend=0)
        for place in np.flatnonzero(left_R != self.counts_R) if len(self.lots_ERL) else ():
            upto_EL = np.cumsum(self.lots_ERL[:, place]) - (self.counts_R[place] - left_R[place])
            self.lots_ERL[:, place] = np.diff(np.maximum(upto_EL, 0), prepend=0).reshape(-1, score.LOTS)
        self.counts_R = left_R
        self.total = int(left_R.sum())

    @property
    def tick(self) -> int:
        """The present tick of the clock by which scores decay."""
        return self.now // int(self.per_tick)

    def turn(self, came: int, room: int) -> None:
        """Notes that `came` rows have come where there is room for `room`: a half-life has passed when that is all of
        the room."""
        if self.by_turnover:
            self._turned += score.HALF_LIFE * min(came / max(room, 1), 1.0)

    def advance(self, pushes: int = 1) -> None:
        """Moves the clock on after pushes have ended, by turnover or by the number of pushes. Ranks rise with ticks, so
        now and then the lowest are merged."""
        self.pushes += pushes
        if self._pushes_per_epoch is not None:
            self._epoch_pushes += pushes
        self._advance(int(self._turned) if self.by_turnover else pushes)

    def seal(self) -> None:
        """Prepares for rows to be dropped: rows touched from now on have another stamp than all rows touched before."""
        if not self.sealed:
            self._advance(max(int(self._turned), 1))

    def _advance(self, by: int) -> None:
        self.now += by
        self._turned = max(self._turned - by, 0.0)
        self.sealed |= by > 0
        while self.tick - BEHIND - self.first >= score.HALF_LIFE:
            self._slide(score.HALF_LIFE)

    @property
    def epoch_ended(self) -> bool:
        """Whether an epoch has ended, so that rows must `expire`."""
        return self._pushes_per_epoch is not None and self._epoch_pushes >= self._pushes_per_epoch

    def expiring(self) -> tuple[int, int]:
        """Returns which rows `expire` will drop: (the stamp below which rows are dropped, how many there are)."""
        return int(self.epochs_E[0]), int(self.counts_ER[0].sum())

    def expire(self) -> None:
        """Subtracts the rows last touched before the oldest epoch that is kept from the counts, and begins a new epoch.
        The clock must be sealed, and an epoch ended."""
        assert self._pushes_per_epoch is not None
        self._epoch_pushes -= self._pushes_per_epoch
        self.total -= int(self.counts_ER[0].sum())
        self.counts_R -= self.counts_ER[0]
        if len(self.lots_ERL):
            live_P = np.flatnonzero(self.counts_ER.any(axis=0))
            self.lots_ERL[:-1, live_P] = self.lots_ERL[1:, live_P]
            self.lots_ERL[-1, live_P] = 0
        self.counts_ER[:-1] = self.counts_ER[1:]
        self.counts_ER[-1] = 0
        self.epochs_E[:-1] = self.epochs_E[1:]
        self.epochs_E[-1] = self.now

    def cut(self, most: int) -> Cut:
        """Returns which rows to drop so that at most `most` stay, about `eviction.rows_kept` of them. If lots do not
        divide the border rank finely enough, more than `most` stay. Rows must be counted by lot."""
        keep, least = eviction.rows_kept(most), eviction.rows_least(most)
        border = self.quantile(keep)
        place = border - self.first
        above = int(self.counts_R[place + 1 :].sum())
        rows_L = self.lots_ERL[:, place].sum(axis=0)
        lots_L = eviction.lots_dropped(rows_L, above, eviction.Bounds(least, keep, most), self.now)
        highest = border - 1 if place else -EVERY_RANK
        return Cut(highest, border if place < score.RANKS - 1 else EVERY_RANK, lots_L)

    def drop(self, cut: Cut) -> int:
        """Subtracts the rows of a cut from the counts; returns how many."""
        before = self.total
        place = min(cut.border - self.first, score.RANKS - 1)
        self._uncount(np.flatnonzero(self.counts_R[:place]))
        gone_EL = self.lots_ERL[:, place] * cut.lots_L
        self.lots_ERL[:, place] -= gone_EL
        self.counts_R[place] -= gone_EL.sum()
        if len(self.epochs_E):
            self.counts_ER[:, place] -= gone_EL.sum(axis=1)
        self.total = int(self.counts_R.sum())
        return before - self.total

    def _uncount(self, places_P: npt.NDArray[np.intp]) -> None:
        self.counts_R[places_P] = 0
        self.counts_ER[:, places_P] = 0
        self.lots_ERL[:, places_P] = 0

    def state(self) -> KeptState:
        """See `ps.kept`. Of the counts by lot only those of ranks that have rows."""
        live_P = np.flatnonzero(self.counts_R) if len(self.lots_ERL) else np.empty(0, np.int64)
        return {
            "by_turnover": self.by_turnover,
            "per_tick": int(self.per_tick),
            "turned": self._turned,
            "epoch_pushes": self._epoch_pushes,
            "counts_R": self.counts_R,
            "counts_ER": self.counts_ER,
            "lots_ERL.ranks": live_P,
            "lots_ERL.counts": self.lots_ERL[:, live_P],
            "epochs_E": self.epochs_E,
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        lots_EPL = state["lots_ERL.counts"]
        told, here = (state["by_turnover"], state["per_tick"]), (self.by_turnover, int(self.per_tick))
        if told != here or len(lots_EPL) != len(self.lots_ERL):
            raise ConfigError(
                "the rows were saved by a shard whose importance goes by another clock: where rows may be evicted, or "
                "go to disk, it counts time in another way. Give disk.path, disk.max_bytes and memory.ram_bytes where "
                "the shard that was saved had them, and only there"
            )
        for array, name in ((self.counts_R, "counts_R"), (self.counts_ER, "counts_ER"), (self.epochs_E, "epochs_E")):
            overwrite(array, state[name])
        self.lots_ERL[:, state["lots_ERL.ranks"]] = lots_EPL
        self._turned, self._epoch_pushes = state["turned"], state["epoch_pushes"]
        for name in _NUMBERS:
            setattr(self, name, state[name])

    def decayed(self, statistics_N2: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """Returns scores as of now."""
        scores_N, stamps_N = score.scores(statistics_N2), statistics_N2[:, 1]
        ages_N = self.tick - stamps_N.astype(np.int64) // int(self.per_tick)
        factors_N = np.where(ages_N < len(self.decay_T), self.decay_T[np.minimum(ages_N, len(self.decay_T) - 1)], 0)
        return (scores_N * factors_N).astype(np.float32)

    def ranks(self, statistics_N2: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        """Returns the ranks of rows, by which they are ordered."""
        ranks_N = np.empty(len(statistics_N2), np.int64)
        score.ranks(statistics_N2, self.per_tick, ranks_N)
        return ranks_N

    def outrank(self, statistics_S2: npt.NDArray[np.uint32], slots_N: Slots, rank: int) -> Flags:
        """Returns which of these slots, -1 for none, have a row of a higher rank."""
        flags_N = np.empty(len(slots_N), np.bool_)
        score.outrank(statistics_S2, slots_N, self.per_tick, rank, flags_N)
        return flags_N

    def least(self, n: int) -> int:
        """Returns the rank such that the n least important rows, and perhaps some more, have it or a lower one."""
        return self.quantile(max(self.total - n, 0)) if n < self.total else EVERY_RANK

    def quantile(self, keep: int) -> int:
        """Returns the rank R such that fewer than `keep` rows are above R, and at least `keep` are at R or above it.

        So rows at R and below may be moved or dropped as long as more than `keep` are left. R is RANKS or more if keep
        <= 0.
        """
        if keep <= 0:
            return self.first + score.RANKS
        from_top_R = np.cumsum(self.counts_R[::-1])
        position = int(np.searchsorted(from_top_R, keep))
        return self.first + max(score.RANKS - 1 - position, 0)

    def below_most(self, n: int) -> int:
        """Returns the rank above which the n most important rows are. Rows with the rank at the border are in or out
        together, whichever brings the number nearer to n. If n are all rows, it is below every rank."""
        if n >= self.total:
            return -EVERY_RANK
        border = self.quantile(n + 1)
        place = border - self.first
        outside = int(self.counts_R[place + 1 :].sum())
        if outside + int(self.counts_R[place]) - n >= n - outside:
            return border
        return border - 1 if place else -EVERY_RANK

    def _slide(self, by: int) -> None:
        if len(self.lots_ERL):
            live_P = np.flatnonzero(self.counts_R)
            lots_EPL = self.lots_ERL[:, live_P]
            self.lots_ERL[:, live_P] = 0
            np.add.at(self.lots_ERL.swapaxes(0, 1), np.maximum(live_P - by, 0), lots_EPL.swapaxes(0, 1))
        self.counts_R = _slid(self.counts_R, by)
        for counts_R in self.counts_ER:
            counts_R[:] = _slid(counts_R, by)
        self.first += by


def _slid(counts_R: npt.NDArray[np.int64], by: int) -> npt.NDArray[np.int64]:
    moved_R = np.zeros_like(counts_R)
    moved_R[:-by] = counts_R[by:]
    moved_R[0] = counts_R[: by + 1].sum()
    return moved_R
