"""Reserves what a write of a table needs before it changes anything: rows that it creates, and room for what it
changes.

New rows read as initial values, as their ids did before, so readers see no difference; `undo_create` takes them back.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Counts, Ids, Slots
from ps.policy.admission import Gate
from ps.policy.ranking import Ranking
from ps.storage.ram.rows import Initializer
from ps.storage.residence.store import Store
from ps.storage.tier import RowLayout
from ps.table.blocks import counts_at
from ps.table.clock import Clock
from ps.table.cold.cold import Cold
from ps.table.counters import Counters


class Reserve:
    """Creates and prepares the rows of one table. Used by the engine thread."""

    def __init__(
        self,
        layout: RowLayout,
        initial_state: float,
        initializer: Initializer,
        store: Store,
        cold: Cold,
        gate: Gate,
        ranking: Ranking,
        clock: Clock,
        counts: Counters,
    ) -> None:
        """initial_state: the initial value of the optimizer's state in a new row."""
        self._layout, self._initial_state, self._initializer = layout, initial_state, initializer
        self._store, self._ram, self._cold, self._gate = store, store.ram, cold, gate
        self._ranking, self._clock, self._counts = ranking, clock, counts

    def existing(self, ids_N: Ids) -> Slots:
        """Returns the slots of the ids, -1 where there is no row in RAM, prepared for a write that creates none. Raises
        ResourceExhausted."""
        slots_N = self._store.find(ids_N)
        self._clock.check()
        self._cold.before_write(slots_N, 0)
        return slots_N

    def create_missing(self, ids_N: Ids, slots_N: Slots) -> Slots:
        """Creates rows with initial values where `slots_N` (as `find` gave it) is -1, and writes their slots there.

        Rows that exist are prepared for an update. None of the ids may be on disk. Returns the positions created.
        Raises ResourceExhausted, and then nothing has changed.
        """
        return self._create(ids_N, slots_N, np.flatnonzero(slots_N < 0))

    def create_admitted(
        self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, rows_R: Slots | None = None
    ) -> Slots:
        """Creates rows as `create_missing` does, for a push: only for ids that the table's `admission` lets in. Counts
        and rows_R as in `Writes.plan_push`: ids without a gradient get no row."""
        return self._create(ids_N, slots_N, self.admitted(ids_N, slots_N, counts_N, rows_R))

    def admitted(self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, rows_R: Slots | None = None) -> Slots:
        """Returns the positions that `create_admitted` would give a row. Changes nothing."""
        missing_N = np.flatnonzero(slots_N < 0) if rows_R is None else rows_R[slots_N[rows_R] < 0]
        if not len(missing_N):
            return missing_N
        counts_M = counts_at(counts_N, missing_N)
        return missing_N[self._gate.admits(ids_N[missing_N], counts_M, self._counts.pushes + 1)]

    def undo_create(self, slots_N: Slots, created_N: Slots) -> None:
        """Takes back what `create_missing` has just done."""
        new_slots_N = slots_N[created_N]
        self._ranking.count(self._ram.statistics_S2[new_slots_N], -1)
        self._ram.release(new_slots_N)
        slots_N[created_N] = -1
        self._counts.rows_created -= len(created_N)

    def _create(self, ids_N: Ids, slots_N: Slots, missing_N: Slots) -> Slots:
        self._clock.check()
        self._cold.before_write(slots_N, len(missing_N))
        if not len(missing_N):
            return missing_N
        new_ids_N = ids_N[missing_N]
        row_NW = np.full((len(new_ids_N), self._layout.width), self._initial_state, dtype=np.float32)
        self._initializer.fill(new_ids_N, row_NW[:, : self._layout.dim])
        self._store.dropped.make_room(len(new_ids_N))
        new_slots_N = self._ram.insert(new_ids_N, self._ranking.now)
        try:
            self._cold.created(new_ids_N, new_slots_N)
            self._ram.rows.set(new_slots_N, row_NW)
            statistics_N2 = self._ram.statistics_S2[new_slots_N]  # the last step that takes memory
        except BaseException:
            self._ram.release(new_slots_N)
            raise
        self._ranking.count(statistics_N2, 1)
        slots_N[missing_N] = new_slots_N
        self._counts.rows_created += len(new_ids_N)
        return missing_N
