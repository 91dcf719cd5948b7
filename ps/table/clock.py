"""A table's clock: ticks, expiry, eviction, and stamps of touched rows.

Time depends on logged writes: pushes, or how many rows have come as a share of the room (`ps.policy.ranking`). After a
write the parts of `after_write` are run in their order. One may fail without the others, and nothing is lost by that:
each part does what is due, not what has just happened, so the next write catches up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Scores, Slots
from ps.config import TableConfig
from ps.errors import ConfigError
from ps.kept import KeptState
from ps.kernels.index.hashing import hash_ids
from ps.kernels.ranking import score
from ps.policy import eviction
from ps.policy.admission import Gate
from ps.policy.importance import Signals
from ps.policy.ranking import EVERY_RANK, Ranking
from ps.storage.residence.store import Store
from ps.table.change import Change
from ps.table.cold.cold import Cold
from ps.table.counters import Counters


class Clock:
    """The clock of one table. Used by the engine thread."""

    def __init__(
        self,
        config: TableConfig,
        bounded: bool,
        resident_rows: Callable[[int], int],
        ranking: Ranking,
        signals: Signals,
        gate: Gate,
        cold: Cold,
        store: Store,
        counts: Counters,
    ) -> None:
        """bounded: whether rows may be evicted. resident_rows: returns how many of so many rows belong in RAM."""
        self._name, self._most_rows = config.name, config.max_rows_per_shard
        self._bounded, self._resident_rows = bounded, resident_rows
        self._lucky = np.uint32(eviction.LUCKY_LOTS if bounded else 0)
        self._ranking, self._floor, self._gate, self._cold, self._store = ranking, signals.floor, gate, cold, store
        self._counts = counts
        self._gate_per_tick = int(score.stamps_per_tick(config.admission_half_life))
        self._decided = 0
        """The tick at which it was last decided which rows are cold."""

    def check(self) -> None:
        """Raises ResourceExhausted, before a write, if the clock is at its end."""
        self._ranking.check_time(self._name)

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {"decided": self._decided}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self._decided = state["decided"]

    # rows are touched

    def use(self, slots_N: Slots, added_N: Scores) -> None:
        """Notes that these rows are pushed, or created, now, which adds to their importance. A checkpoint that is being
        taken has them by now."""
        self._touch(slots_N, added_N, self._floor, self._lucky)

    def stamp(self, slots_N: Slots, added_N: Scores | None = None) -> None:
        """Notes that these rows are written now; their importance stays, or grows by what is added."""
        if self._store.ram.saving is not None:
            self._store.ram.saving.before_change(slots_N)
        zeros_N = np.zeros(len(slots_N), np.float32)
        self._touch(slots_N, zeros_N if added_N is None else added_N, np.float32(0), np.uint32(0))

    def place(self, slots_N: Slots, scores_N: Scores, existed_N: Flags) -> None:
        """Gives rows these scores as of now; new rows their lots too. The rank of one that existed does not fall, and
        its lot stays: an older form of it, on disk or in a checkpoint, would outlive it when rows are dropped."""
        statistics_S2 = self._store.ram.statistics_S2
        old_N2 = statistics_S2[slots_N]
        self._ranking.count(old_N2, -1)
        bits_N = np.ascontiguousarray(scores_N).view(np.uint32)
        risen_N = score.risen(old_N2, bits_N, self._ranking.now, self._ranking.per_tick)
        statistics_S2[slots_N, 0] = np.where(existed_N, risen_N, bits_N)
        statistics_S2[slots_N, 1] = self._ranking.now
        score.mark(self._store.ram.marks_S, slots_N, score.DIRTY | score.CHANGED, 0)
        self._ranking.count(statistics_S2[slots_N], 1)
        self._ranking.sealed = False

    def _touch(self, slots_N: Slots, added_N: Scores, floor: np.float32, lucky: np.uint32) -> None:
        ranking, ram, total = self._ranking, self._store.ram, self._ranking.total
        room = total if self._bounded else max(self._resident_rows(total), 1)
        border = ranking.quantile(room) if ranking.by_turnover and room < total else -EVERY_RANK
        came = score.touch(
            ram.statistics_S2,
            ram.scores_S2,
            ram.marks_S,
            slots_N,
            added_N,
            np.uint32(ranking.now),
            ranking.per_tick,
            ranking.decay_T,
            floor,
            lucky,
            border,
            ranking.counts_R,
            ranking.counts_ER,
            ranking.counted_lots,
            ranking.epochs_E,
            ranking.first,
        )
        ranking.sealed = False
        ranking.turn(came, room)

    # time passes

    def after_push(self, slots_N: Slots) -> Mapping[str, Callable[[], None]]:
        """Returns the work to run after a push of the rows in these slots."""
        return {"promotion": partial(self._cold.pushed, slots_N), **self.after_write()}

    def after_write(self) -> Mapping[str, Callable[[], None]]:
        """Returns the work to run after any write that may create rows, by name and in this order."""
        return {
            "clock": self._advance,
            "expiry": self._expire,
            "eviction": self._limit,
            "admission": self._tick_gate,
        }

    def _advance(self) -> None:
        pushes = self._counts.pushes - self._ranking.pushes
        if pushes:
            self._ranking.advance(pushes)
        self._decide()

    def _decide(self) -> None:
        if self._ranking.tick > self._decided:
            self._cold.tick()
            self._decided = self._ranking.tick

    def _seal(self) -> None:
        """Prepares for rows to be dropped: rows touched later are told from those touched before."""
        self._ranking.seal()
        self._decide()

    def _expire(self) -> None:
        """Drops rows that no push has named for `expire_after_pushes`."""
        while self._ranking.epoch_ended:
            self._seal()
            kept_from, expired = self._ranking.expiring()
            if expired:
                self._store.drop(kept_from, EVERY_RANK, -EVERY_RANK, np.zeros(score.LOTS, np.bool_))
            self._ranking.expire()
            self._counts.rows_expired += expired

    def _tick_gate(self) -> None:
        self._gate.tick(self._counts.pushes // self._gate_per_tick)

    # eviction

    def _limit(self) -> None:
        if self._most_rows is not None and self._ranking.total > self._most_rows:
            self._seal()
            self._cut(self._most_rows)

    def plan_eviction(self, most: int) -> Change:
        """Plans to drop the least important rows if there are more than `most`; all of them at once, on whatever tier.
        No fewer than `eviction.LEAST` of `most` are left. There may be more left than `most`, see `surplus`. Raises
        ConfigError where nothing bounds the rows: they are not counted so that some can be cut."""
        if not self._bounded:
            raise ConfigError(
                f"table {self._name!r}: rows were evicted by a shard with a bound, and nothing bounds them here: give "
                "memory.ram_bytes, disk.path and disk.max_bytes where the shard that wrote the log had them"
            )

        def make() -> None:
            if self._ranking.total > most:
                self._ranking.seal()
                self._cut(most)

        return Change(make, {"clock": self._decide})

    def _cut(self, most: int) -> None:
        ranking = self._ranking
        cut = ranking.cut(most)
        self._counts.rows_evicted += ranking.drop(cut)
        self._store.drop(ranking.now, *cut)

    def surplus(self, most: int | None) -> tuple[Ids, npt.NDArray[np.uint32]]:
        """Returns ids [N] and statistics [N, 2] of the least important rows that are too many, where there are more
        than `most` or than the table may have: they are chosen one by one, after a look at all. So it is where the rows
        of one lot are more than may go at once: there is room for few rows, or a push has brought many times what there
        is room for. Raises DiskError and DiskFull."""
        ranking = self._ranking
        bounds = [bound for bound in (most, self._most_rows) if bound is not None]
        if not bounds or ranking.total <= min(bounds):
            return np.empty(0, np.int64), np.empty((0, 2), np.uint32)
        rows = list(self._store.pages.statistics())
        ids_N = np.concatenate([part_N for part_N, _ in rows])
        statistics_N2 = np.concatenate([part_N2 for _, part_N2 in rows])
        order_N = np.empty(len(ids_N), np.uint64)
        hash_ids(ids_N ^ ranking.now, order_N)
        n = ranking.total - eviction.rows_kept(min(bounds))
        chosen_N = np.lexsort((order_N, ranking.ranks(statistics_N2)))[:n]
        return ids_N[chosen_N], statistics_N2[chosen_N]

    def plan_eviction_of(self, ids_N: Ids, statistics_N2: npt.NDArray[np.uint32]) -> Change:
        """Plans to drop rows that `surplus` has chosen. What the disk has of them goes now. Raises DiskError and
        DiskFull, and then nothing has changed."""
        self._store.removals.discard_below(ids_N)

        def make() -> None:
            self._store.removals.remove(ids_N)
            self._ranking.count(statistics_N2, -1)
            self._counts.rows_evicted += len(ids_N)

        return Change(make)
