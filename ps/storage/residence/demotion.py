"""Rows on their way down: copied, written below by another thread, and freed when nobody can mind.

A row is never without a valid place. Its bytes are copied (`begin`) and written below; its slot is freed (`settle`) if
nobody has touched or pinned it meanwhile, and only when every read that was open at the end of the write has ended:
such a read may have missed the row below, and would bring up an older one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ps.arrays import Ids, Slots
from ps.errors import InternalError, PsError
from ps.kernels.ranking import score
from ps.storage.ram.arena import Arena
from ps.storage.residence.below import Below
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.once import Once
from ps.storage.residence.sight import Sight
from ps.storage.tier import LowerTier, Records

SEARCH_SLOTS = 1 << 16
"""How many slots one search for rows to demote looks at: 0.1 ms."""
SEARCHES = 8
"""How many searches are made until one finds any: it may be that what is held is all there is for a while."""


class Demoted(Protocol):
    """The counter of rows that went down."""

    rows_demoted: int


@dataclass
class Demotion:
    """Rows on their way down, all of one length, so that they are written whole or not at all."""

    tier: LowerTier
    slots_N: Slots
    ids_N: Ids
    """Ids whose slots are to be freed; some may be called off."""
    below_N: Ids
    """Ids that have a row below afterwards."""
    changed: list[Records]
    """Rows that the tier does not have as they are."""
    held: int
    """How many of them it is known to have, in an older form."""
    perhaps_held_N: Ids
    """Ids of which it may have a row all the same: one of an earlier life, dropped and still there."""
    once: Once = field(default_factory=Once)
    error: PsError | None = None
    not_before: int = 0
    """The fetches below this number were open when the write had ended."""

    @property
    def wrote(self) -> bool:
        """Whether there was anything to write."""
        return len(self.changed) > 0

    def write(self) -> None:
        """Writes below, once. An error is kept for `Store.finish`. Any thread."""
        self.once.do(self._write)

    def give_up(self, error: PsError) -> None:
        """Nothing is written any more, if nothing was: `Store.finish` is told why."""
        self.once.do(lambda: setattr(self, "error", error))

    def _write(self) -> None:
        try:
            held = self.held + self.tier.count_held(self.perhaps_held_N)
            for records in self.changed:
                self.tier.write(records, held)
        except PsError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  no memory, say: whatever it is, the rows are not below
            self.error = InternalError(f"rows could not be written to disk: {error!r}")

    def moved(self, from_N: Slots, to_N: Slots) -> None:
        """Notes that rows have gone from these slots, which ascend, to those."""
        if len(from_N):
            at_N = np.minimum(np.searchsorted(from_N, self.slots_N), len(from_N) - 1)
            self.slots_N = np.where(from_N[at_N] == self.slots_N, to_N[at_N], self.slots_N)

    def call_off(self, ids_N: Ids) -> None:
        """Keeps those rows in RAM: they are not what they were."""
        kept_N = np.isin(self.ids_N, ids_N, invert=True)
        self.slots_N, self.ids_N = self.slots_N[kept_N], self.ids_N[kept_N]


class Demotions:
    """All demotions of one table: at most one that is being written, and those whose slots wait to be freed."""

    def __init__(
        self, ram: Arena, below: Below, dropped: Dropped, sight: Sight, per_tick: np.uint32, counts: Demoted
    ) -> None:
        """`per_tick`: of the table's ranking."""
        self._ram, self._below, self._dropped, self._sight = ram, below, dropped, sight
        self._per_tick, self._counts = per_tick, counts
        self._writing: Demotion | None = None
        self._condemned: deque[Demotion] = deque()
        self._hand = 0  # where the next search begins

    def __iter__(self) -> Iterator[Demotion]:
        yield from self._condemned
        if self._writing is not None:
            yield self._writing

    def begin(self, highest: int, most: int) -> Demotion | None:
        """Begins to move rows of rank `highest` or lower down, at most so many; None if there are none. One at a
        time."""
        ram = self._ram
        found_N = self._dropped.living(self._search(highest, most))
        if not len(found_N):
            return None
        as_below_N = ram.marks_S[found_N] & (score.DIRTY | score.COPIED) == score.COPIED
        changed_N = found_N[~as_below_N]
        changed = self._sight.as_seen(ram.records(changed_N))
        if len(changed) > 1:  # the others stay for another search
            changed = [max(changed, key=len)]
            changed_N = ram.find(changed[0].ids_N)
        slots_N = np.concatenate([found_N[as_below_N], changed_N])
        new_N = changed_N[ram.marks_S[changed_N] & score.COPIED == 0]
        new_ids_N = ram.ids_S[new_N]
        perhaps_held_N = new_ids_N[self._below.may_have(new_ids_N)]
        self._below.expect(new_ids_N)  # before the first of them can be missed in RAM
        score.mark(ram.marks_S, slots_N, score.GOING, score.DIRTY)  # after all that can fail
        ids_N = ram.ids_S[slots_N]
        held = len(changed_N) - len(new_N)
        self._writing = Demotion(self._below.tier, slots_N, ids_N, ids_N, changed, held, perhaps_held_N)
        return self._writing

    def ended(self, demotion: Demotion, next_fetch: int) -> None:
        """Notes that it was written, or could not be: then the rows stay. `next_fetch`: the number of the next one."""
        self._writing = None
        slots_N = self._ram.find(demotion.below_N)  # some may be dropped by now, and there again in other slots
        if demotion.error is None:
            score.mark(self._ram.marks_S, slots_N, score.COPIED, 0)
            demotion.not_before = next_fetch
            self._condemned.append(demotion)
        else:
            score.mark(self._ram.marks_S, slots_N, score.DIRTY, score.GOING)

    def settle(self, oldest_open: int) -> None:
        """Frees the slots of rows that are below, unless they were touched or pinned since. `oldest_open`: no fetch of
        a lower number is open."""
        ram = self._ram
        while self._condemned and self._condemned[0].not_before <= oldest_open:
            demotion = self._condemned.popleft()
            slots_N = demotion.slots_N[ram.ids_S[demotion.slots_N] == demotion.ids_N]
            marks_N = ram.marks_S[slots_N]
            as_below_N = marks_N & np.uint16(0xFFFF - score.CHANGED) == score.USED | score.COPIED | score.GOING
            freed_N = slots_N[as_below_N]
            score.mark(ram.marks_S, slots_N, 0, score.GOING)
            ram.release(freed_N)
            self._counts.rows_demoted += len(freed_N)

    def close(self) -> None:
        """Frees no more slots."""
        self._condemned.clear()
        self._writing = None

    def _search(self, highest: int, most: int) -> Slots:
        """Returns slots that no step holds, from where the last search ended."""
        ram, out_N = self._ram, np.empty(most, np.int64)
        for _ in range(SEARCHES):
            if self._hand >= ram.slots_end:
                self._hand = 0
            end = min(self._hand + SEARCH_SLOTS, ram.slots_end)
            found, self._hand = score.select(
                ram.statistics_S2, ram.marks_S, self._hand, end, highest, self._per_tick, out_N
            )
            if found:
                break
        return out_N[:found]
