"""Rows that were dropped all at once, by a cut: absent for whoever asks, while their slots are freed bit by bit."""

from __future__ import annotations

import numpy as np

from ps.arrays import Flags, Ids, Slots
from ps.kept import KeptState, joined, restored
from ps.storage.ram.arena import Arena
from ps.storage.ram.cuts import Cuts
from ps.storage.tier import Records, where

SWEEP_SLOTS = 1 << 15
"""Slots looked at in one go: 0.1 ms, and 3 ms if every row is to be freed."""


class Dropped:
    """The dropped rows of one arena, and the cuts that tell them on any tier. The engine thread's."""

    def __init__(self, ram: Arena, per_tick: np.uint32) -> None:
        self.cuts = Cuts(per_tick)
        self._ram = ram
        self._hand = self._end = 0

    @property
    def pending(self) -> bool:
        """Whether rows may be in RAM still that are dropped."""
        return self._hand < self._end

    def cut(self, stamp: int, highest: int, border: int, lots_L: Flags) -> None:
        """Drops rows with stamps below `stamp`: those of rank `highest` or lower, and those of rank `border` or lower
        that are in one of these lots. Slots found earlier may be wrong now."""
        self.cuts.add(stamp, highest)
        self.cuts.add(stamp, border, lots_L)
        self._ram.end_layout()
        self._hand, self._end = 0, self._ram.slots_end

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where there is no row in RAM."""
        slots_N = self._ram.find(ids_N)
        if self.pending:
            found_N = np.flatnonzero(slots_N >= 0)
            met_N = self.cuts.met(self._ram.statistics_S2[slots_N[found_N]])
            self._ram.release(slots_N[found_N[met_N]])
            slots_N[found_N[met_N]] = -1
        return slots_N

    def living(self, slots_N: Slots) -> Slots:
        """Returns those of some slots with rows whose rows were not dropped; the others are freed."""
        if not self.pending:
            return slots_N
        met_N = self.cuts.met(self._ram.statistics_S2[slots_N])
        self._ram.release(slots_N[met_N])
        return slots_N[~met_N]

    def among(self, slots_N: Slots, ids_N: Ids) -> Ids:
        """Returns which of the ids, last seen in those slots, are dropped, or not there any more."""
        alive_N = (self._ram.ids_S[slots_N] == ids_N) & ~self.cuts.met(self._ram.statistics_S2[slots_N])
        gone_N: Ids = ids_N[~alive_N]
        return gone_N

    def make_room(self, n: int) -> None:
        """Frees slots until there are n, or none left to free: new rows go where dropped ones were."""
        while self.pending and self._ram.n_free < n:
            self.sweep()

    def finish(self) -> None:
        """Frees the slots of all dropped rows."""
        while self.pending:
            self.sweep()

    def sweep(self) -> None:
        """Frees the slots of some dropped rows."""
        if self.pending:
            end = min(self._hand + SWEEP_SLOTS, self._end)
            self._ram.release(self.cuts.select(self._ram.statistics_S2, self._ram.marks_S, self._hand, end))
            self._hand = end

    def alive(self, records: Records) -> Records:
        """Returns the records that no cut has met."""
        return where(records, ~self.cuts.met(records.statistics_N2)) if self.cuts else records

    def state(self) -> KeptState:
        """See `ps.kept`. Rows that were cut are not saved, so none is to be freed."""
        return joined({"cuts": self.cuts})

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        restored({"cuts": self.cuts}, state)
