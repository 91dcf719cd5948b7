"""A table's rows over its tiers: RAM above, another tier below, and the way between.

Reading order is RAM, then below. A row that comes up leaves its copy below, so that going down again costs nothing
while it is not written to. How rows go down: `ps.storage.residence.demotion`. How they are removed by their ids:
`ps.storage.residence.removal`; all at once, by a cut: `ps.storage.residence.dropped`, and `ps.storage.residence.purge`
for their copies below.

Two things could go wrong with threads that read the tier below while the engine goes on, and do not:

- A read that began before a row was written below must not bring its older bytes up after the row's slot was freed. So
  a slot is freed only when every read that was open at the end of the write has ended (`Store.end`).
- A row that was removed while a read of it was open must not come back: a read that spans a removal is done again.

Owned by the engine thread; `Fetch.read`, `Demotion.write` and `Slice.write` are for other threads.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ps.arrays import Flags, Ids, Slots
from ps.errors import PsError, Unavailable
from ps.kernels.ranking import score
from ps.storage.budget.budget import RamBudget
from ps.storage.ram.arena import Arena
from ps.storage.residence.below import Below
from ps.storage.residence.demotion import Demoted, Demotion, Demotions
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.fetch import Fetch, Fetches
from ps.storage.residence.pages import Pages
from ps.storage.residence.purge import Slice
from ps.storage.residence.removal import Removals
from ps.storage.residence.sight import Sight
from ps.storage.tier import LowerTier, Records, where


class Moves(Demoted, Protocol):
    """The counters of rows that went up or down."""

    rows_raised: int


class Store:
    """RAM over another tier for one table."""

    def __init__(
        self,
        ram: Arena,
        tier: LowerTier | None,
        budget: RamBudget,
        dropped: Dropped,
        per_tick: np.uint32,
        sight: Sight,
        counts: Moves,
    ) -> None:
        """tier: where rows can go down to, if any. per_tick: of the table's ranking. Raises ResourceExhausted."""
        self.ram, self.dropped = ram, dropped
        self.below = Below(tier, budget.filters)
        self.pages = Pages(ram, self.below, dropped, sight)
        self._sight, self._counts = sight, counts
        self._demotions = Demotions(ram, self.below, dropped, sight, per_tick, counts)
        self._fetches = Fetches(self.below, budget.bodies)
        self.removals = Removals(ram, self.below, dropped, self._demotions, self.finish_writing)
        self._writing: Demotion | Slice | None = None

    @property
    def has_below(self) -> bool:
        """Returns whether there is any row that is not in RAM."""
        return len(self.below) > 0

    @property
    def going(self) -> int:
        """Rows in RAM that are on their way down."""
        return sum(len(demotion.ids_N) for demotion in self._demotions)

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where there is no row in RAM."""
        return self.dropped.find(ids_N)

    # slots for other tables, see `ps.storage.budget.room.Lender`

    def free_slots(self) -> int:
        """Returns how many slots have no row; those of dropped rows are freed."""
        self.dropped.finish()
        return self.ram.slots_end - len(self.ram)

    def shrink(self, slots: int, rebuild: bool = False) -> None:
        """Gives back the memory of slots from `slots` on, see `Arena.shrink`; `free_slots` was asked before."""
        moved = self.ram.shrink(slots, rebuild)
        for demotion in self._demotions:
            demotion.moved(*moved)
        self._sight.moved()

    # up

    def fetch(self, ids_N: Ids) -> Fetch | None:
        """Begins to bring up rows that are not in RAM; None if none of them can be below. `end` it, come what may.

        Raises ResourceExhausted when too much is on its way already.
        """
        return self._fetches.begin(ids_N, self.removals.done, self.ram.rows.lengths[0])

    def found(self, fetch: Fetch) -> list[Records]:
        """Returns what the fetch has read of rows that are still not in RAM."""
        if fetch.removals != self.removals.done:
            fetch.read()
        alive = map(self.dropped.alive, fetch.found)
        return self._sight.as_seen(where(records, self.find(records.ids_N) < 0) for records in alive)

    def install(self, fetch: Fetch) -> int:
        """Puts what was read into RAM; returns how many rows. Raises ResourceExhausted, and then nothing has
        changed."""
        installed = 0
        for records in self.found(fetch):
            self.dropped.make_room(len(records))
            slots_N = self.ram.write(records)
            score.mark(self.ram.marks_S, slots_N, score.COPIED, score.DIRTY | score.CHANGED)
            installed += len(records)
        self._counts.rows_raised += installed
        return installed

    def end(self, fetch: Fetch) -> None:
        """Ends a fetch: slots that waited for it may be freed now."""
        self._fetches.end(fetch)
        self._demotions.settle(self._fetches.oldest_open)

    # down

    def demote(self, highest: int, most: int) -> Demotion | None:
        """Begins to move rows of rank `highest` or lower down, at most so many. One at a time; `finish` it."""
        if not self.below.exists or self._writing is not None:
            return None
        demotion = self._demotions.begin(highest, most)
        self._writing = demotion
        return demotion

    def purge(self) -> Slice | None:
        """Begins to take some dropped rows off the tier below. One at a time, not beside a demotion; `finish` it."""
        if self._writing is not None:
            return None
        self._writing = slice_ = self.below.next_slice(self.dropped.cuts)
        return slice_

    def finish(self, written: Demotion | Slice) -> PsError | None:
        """Ends a demotion or a slice after its write. Rows that went down have a copy below now, and their slots are
        freed as soon as no open read can mind. Returns the error of the write, if there was one; the rows stay where
        they are then."""
        if self._writing is written:  # or else a removal has waited for it and finished it
            self._writing = None
            if isinstance(written, Demotion):
                self._demotions.ended(written, self._fetches.next)
                self._demotions.settle(self._fetches.oldest_open)
            else:
                slots_N = self.ram.find(written.gone_N)
                score.mark(self.ram.marks_S, slots_N, 0, score.COPIED)  # touched since: what went was an older copy
                self.below.purged(written)
        return written.error

    def finish_writing(self) -> None:
        """Writes now what is to be written below, if anything is."""
        if self._writing is not None:
            self._writing.write()
            self.finish(self._writing)

    def drop(self, stamp: int, highest: int, border: int, lots_L: Flags) -> None:
        """Drops all rows, on every tier, with stamps below `stamp` and of rank `highest` or lower, or of rank `border`
        or lower and in one of these lots."""
        self.dropped.cut(stamp, highest, border, lots_L)
        # before one ends, the same ids may be there again, with other rows
        for demotion in self._demotions:
            demotion.call_off(self.dropped.among(demotion.slots_N, demotion.ids_N))
        self.below.start_purge()

    def take_in(self, records: Records, marks_N: score.Marks, most: int) -> None:
        """Takes in rows with the marks that they had in RAM: there those that stay, and others until there are `most`;
        below the rest, if there is a disk. Raises ResourceExhausted, DiskFull and DiskError."""
        if self.below.exists:
            stays_N = marks_N & score.STAYS != 0
            above_N = stays_N | (np.cumsum(~stays_N) <= max(most - len(self.ram), 0))
            if not above_N.all():
                self.below.take_in(where(records, ~above_N), marks_N[~above_N])
                records, marks_N = where(records, above_N), marks_N[above_N]
        slots_N = self.ram.write(records, asks=False)
        self.ram.marks_S[slots_N] |= marks_N

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes of RAM by purpose."""
        filters = self.below.nbytes
        return {**self.ram.memory_usage(), **({"filter": filters} if filters else {})}

    def close(self) -> None:
        """Gives the filters back. What is under way may still end; arena and tier are for their owners to close."""
        if self._writing is not None:
            self._writing.give_up(Unavailable("the table is closed"))
            self._writing = None
        self._demotions.close()
        self.below.close()
