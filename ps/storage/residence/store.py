"""A table's rows over its tiers: RAM above, disk below, and the way between.

Reading order is RAM, then disk. A row goes down in three steps, and is never without a valid place: its bytes are
copied (`demote`), written below by another thread, and its slot is freed (`settle`) if nobody has touched or pinned it
meanwhile. A row that comes up leaves its copy below, so that going down again costs nothing while it is not written to.

Two things could go wrong with threads that read the disk while the engine goes on, and do not:

- A read that began before a row was written below must not bring its older bytes up after the row's slot was freed. So
  a slot is freed only when every read that was open at the end of the write has ended (`Store.end`).
- A row that was removed while a read of it was open must not come back: a read that spans a removal is done again.

Owned by the engine thread; `Fetch.read` and `Demotion.write` are for other threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Slots
from ps.config import PARTITIONS
from ps.errors import CorruptRow, InternalError, PsError, Unavailable
from ps.kernels.index.hashing import partitions
from ps.kernels.ranking import score
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.storage.budget.budget import READ_COPIES, RamBudget
from ps.storage.disk.filter import IdFilter
from ps.storage.disk.tier import DiskTier
from ps.storage.ram.arena import Arena
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.once import Once
from ps.storage.residence.purge import Purge, Slice
from ps.storage.tier import Records, where

PAGE_BLOCK = 1 << 16
"""Slots that a page of an export looks at in one go."""
SEARCH_SLOTS = 1 << 16
"""Slots that one search for rows to demote looks at: 0.1 ms."""
PAGE_PARTITIONS = PARTITIONS // 64
"""How many partitions of the disk are read at once."""
SEARCHES = 8
"""Made until one finds any: it may be that what is held is all there is for a while."""


AsSeen = Callable[[Iterable[Records]], list[Records]]


@dataclass
class Fetch:
    """Rows on their way up, for a step or for one pull."""

    disk: DiskTier
    ids_N: Ids
    """Not in RAM, and perhaps on disk."""
    number: int
    removals: int
    nbytes: int
    """That reading them takes."""
    found: list[Records] = field(default_factory=list)

    def read(self, check: Callable[[], None] = lambda: None) -> None:
        """Any thread: reads the disk, for as long as `check` does not raise."""
        self.found = self.disk.read(self.ids_N, check)


@dataclass
class Demotion:
    """Rows on their way down."""

    disk: DiskTier
    slots_N: Slots
    ids_N: Ids
    """Those whose slots are to be freed; some may be called off."""
    below_N: Ids
    """Those that have a row on disk afterwards."""
    changed: list[Records]
    """Those that the disk does not have as they are: of one length, so that they are written whole or not at all."""
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
        """Any thread: writes the rows to disk, once. An error is kept for `Store.finish`."""
        self.once.do(self._write)

    def give_up(self, error: PsError) -> None:
        """Nothing is written any more, if nothing was: `Store.finish` is told why."""
        self.once.do(lambda: setattr(self, "error", error))

    def _write(self) -> None:
        try:
            held = self.held + self.disk.count_held(self.perhaps_held_N)
            for records in self.changed:
                self.disk.write(records, held)
        except PsError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  no memory, say: whatever it is, the rows are not below
            self.error = InternalError(f"rows could not be written to disk: {error!r}")

    def moved(self, from_N: Slots, to_N: Slots) -> None:
        """Rows have gone from these slots, which ascend, to those."""
        if len(from_N):
            at_N = np.minimum(np.searchsorted(from_N, self.slots_N), len(from_N) - 1)
            self.slots_N = np.where(from_N[at_N] == self.slots_N, to_N[at_N], self.slots_N)

    def call_off(self, ids_N: Ids) -> None:
        """Those rows do not go down: they are not what they were."""
        kept_N = np.isin(self.ids_N, ids_N, invert=True)
        self.slots_N, self.ids_N = self.slots_N[kept_N], self.ids_N[kept_N]


class Store:
    """RAM over disk for one table."""

    def __init__(
        self, ram: Arena, disk: DiskTier | None, budget: RamBudget, per_tick: np.uint32, as_seen: AsSeen = list
    ) -> None:
        """`per_tick`: of the table's ranking. `as_seen`: what rows are where somebody looks at them, whatever their
        bytes are by now."""
        self.ram = ram
        self._as_seen = as_seen
        self._disk = disk
        self._below = IdFilter(memory=budget.filters) if disk is not None else None
        self._bodies = budget.bodies
        self._next_fetch = 0
        self._open: set[int] = set()
        self._removals = 0
        self._per_tick = per_tick
        self._dropped = Dropped(ram, per_tick)
        self._purge = Purge(disk, budget.filters) if disk is not None else None
        self._writing: Demotion | Slice | None = None
        self._condemned: deque[Demotion] = deque()
        self._hand = 0  # where the next search for rows to demote begins
        self.rows_raised = 0
        self.rows_demoted = 0

    @property
    def has_disk(self) -> bool:
        """Whether rows can go down."""
        return self._disk is not None

    @property
    def has_below(self) -> bool:
        """Whether there is any row that is not in RAM."""
        return self._disk is not None and len(self._disk) > 0

    @property
    def held(self) -> int:
        """Rows in RAM that steps hold. Looks at every slot."""
        return int(np.count_nonzero(self.ram.marks_S[: self.ram.slots_end] >= score.PIN))

    @property
    def going(self) -> int:
        """Rows in RAM that are on their way down."""
        return sum(len(demotion.ids_N) for demotion in self._going())

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row in RAM."""
        return self._dropped.find(ids_N)

    def make_room(self, n: int) -> None:
        """Before n rows come into RAM: the slots of dropped ones go first."""
        self._dropped.make_room(n)

    def shrink(self, slots: int, rebuild: bool = False) -> None:
        """See `Arena.shrink`. No row is dropped and in RAM still."""
        moved = self.ram.shrink(slots, rebuild)
        for demotion in self._going():
            demotion.moved(*moved)

    def finish_dropping(self) -> None:
        """Frees the slots of all dropped rows."""
        self._dropped.finish()

    # up

    def fetch(self, ids_N: Ids) -> Fetch | None:
        """Begins to bring up rows that are not in RAM; None if none of them can be on disk. `end` it, come what may.

        Raises ResourceExhausted when too much is on its way already.
        """
        if self._disk is None or self._below is None or not len(self._disk) or not len(ids_N):
            return None
        wanted_N = ids_N[self._below.may_contain(ids_N)]
        if not len(wanted_N):
            return None
        nbytes = len(wanted_N) * READ_COPIES * (self.ram.rows.lengths[0] + HEADER_BYTES)
        self._bodies.hold(nbytes)
        fetch = Fetch(self._disk, wanted_N, self._next_fetch, self._removals, nbytes)
        self._next_fetch += 1
        self._open.add(fetch.number)
        return fetch

    def maybe_below(self, ids_N: Ids) -> Flags:
        """Which of the ids may have a row on disk."""
        return np.zeros(len(ids_N), np.bool_) if self._below is None else self._below.may_contain(ids_N)

    def found(self, fetch: Fetch) -> list[Records]:
        """What the fetch has read of rows that are still not in RAM."""
        if fetch.removals != self._removals:
            fetch.read()
        alive = map(self._dropped.alive, fetch.found)
        return self._as_seen(where(records, self.find(records.ids_N) < 0) for records in alive)

    def install(self, fetch: Fetch) -> int:
        """Puts what was read into RAM; how many rows. Raises ResourceExhausted, and then nothing has changed."""
        installed = 0
        for records in self.found(fetch):
            self.make_room(len(records))
            slots_N = self.ram.write(records)
            score.mark(self.ram.marks_S, slots_N, score.COPIED, score.DIRTY)
            installed += len(records)
        self.rows_raised += installed
        return installed

    def end(self, fetch: Fetch) -> None:
        """Slots that waited for this fetch may be freed now."""
        self._bodies.give(fetch.nbytes)
        self._open.discard(fetch.number)
        self.settle()

    # down

    def demote(self, highest: int, most: int) -> Demotion | None:
        """Begins to move rows of rank `highest` or lower down, at most so many. One at a time; `finish` it."""
        if self._disk is None or self._below is None or self._writing is not None:
            return None
        found_N = self._dropped.living(self._search(highest, most))
        if not len(found_N):
            return None
        as_below_N = self.ram.marks_S[found_N] & (score.DIRTY | score.COPIED) == score.COPIED
        changed_N = found_N[~as_below_N]
        changed = self._as_seen(self.ram.records(changed_N))
        if len(changed) > 1:  # the others stay for another search
            changed = [max(changed, key=len)]
            changed_N = self.ram.find(changed[0].ids_N)
        slots_N = np.concatenate([found_N[as_below_N], changed_N])
        new_N = changed_N[self.ram.marks_S[changed_N] & score.COPIED == 0]
        new_ids_N = self.ram.ids_S[new_N]
        perhaps_held_N = new_ids_N[self._below.may_contain(new_ids_N)]
        for filter_ in self._filters():
            filter_.add(new_ids_N)  # before the first of them can be missed in RAM
        score.mark(self.ram.marks_S, slots_N, score.GOING, score.DIRTY)  # after all that can fail
        ids_N = self.ram.ids_S[slots_N]
        held = len(changed_N) - len(new_N)
        self._writing = Demotion(self._disk, slots_N, ids_N, ids_N, changed, held, perhaps_held_N)
        return self._writing

    def finish(self, written: Demotion | Slice) -> PsError | None:
        """After its write: the rows have a copy below, and their slots are freed as soon as no open read can mind.

        The error of the write, if there was one; the rows stay where they are then.
        """
        if self._writing is written:  # or else a removal has waited for it and finished it
            self._writing = None
            if isinstance(written, Demotion):
                self._demoted(written)
            else:
                self._purged(written)
        return written.error

    def _demoted(self, demotion: Demotion) -> None:
        slots_N = self.ram.find(demotion.below_N)  # some may be dropped by now, and there again in other slots
        if demotion.error is None:
            score.mark(self.ram.marks_S, slots_N, score.COPIED, 0)
            demotion.not_before = self._next_fetch
            self._condemned.append(demotion)
            self.settle()
        else:
            score.mark(self.ram.marks_S, slots_N, score.DIRTY, score.GOING)

    def settle(self) -> None:
        """Frees the slots of rows that are below, unless they were touched or pinned since."""
        while self._condemned and self._condemned[0].not_before <= min(self._open, default=self._next_fetch):
            demotion = self._condemned.popleft()
            slots_N = demotion.slots_N[self.ram.ids_S[demotion.slots_N] == demotion.ids_N]
            marks_N = self.ram.marks_S[slots_N]
            freed_N = slots_N[marks_N == score.USED | score.COPIED | score.GOING]
            score.mark(self.ram.marks_S, slots_N, 0, score.GOING)
            self.ram.release(freed_N)
            self.rows_demoted += len(freed_N)

    def discard_copies(self, ids_N: Ids) -> None:
        """Drops what the disk has of rows that are in RAM: they are in RAM alone then. Raises what the disk raises, and
        has changed nothing then."""
        slots_N = self._held(ids_N)
        score.mark(self.ram.marks_S, slots_N, 0, score.GOING)
        copied_N = (slots_N >= 0) & self._copied(slots_N)
        self._discard_below(ids_N[copied_N])
        score.mark(self.ram.marks_S, slots_N[copied_N], 0, score.COPIED)

    def remove(self, ids_N: Ids) -> None:
        """Drops rows that are in RAM, or nowhere. Those below come up, and copies are discarded, before."""
        self._removals += 1
        self.ram.discard(ids_N)

    def remove_all(self, ids_N: Ids) -> None:
        """Drops rows that exist, on whatever tier each of them is. Raises DiskFull and DiskError, and then nothing has
        changed."""
        self.discard_below(ids_N)
        self.remove(ids_N)

    def discard_below(self, ids_N: Ids) -> None:
        """Drops what the disk has of rows that exist, whether they are in RAM as well or can be read at all. Raises
        DiskFull and DiskError, and then nothing has changed."""
        slots_N = self._held(ids_N)
        copied_N = self._copied(slots_N)
        self._discard_below(ids_N[(slots_N < 0) | copied_N])
        score.mark(self.ram.marks_S, slots_N[(slots_N >= 0) & copied_N], 0, score.COPIED)

    def _held(self, ids_N: Ids) -> Slots:
        """The slots of rows that are to be removed, -1 where one is not in RAM. None is on its way down any more."""
        if self._writing is not None:  # it may be about one of them
            self._writing.write()
            self.finish(self._writing)
        for demotion in self._condemned:
            demotion.call_off(ids_N)
        return self.find(ids_N)

    def _copied(self, slots_N: Slots) -> Flags:
        """Which of these slots have a row that is on disk as well. Without a meaning for a slot of -1."""
        copied_N: Flags = self.ram.marks_S[slots_N] & score.COPIED != 0
        return copied_N

    def _discard_below(self, ids_N: Ids) -> None:
        """Drops these rows from the disk, if there is one."""
        if self._disk is not None and len(ids_N):
            self._disk.discard(ids_N, len(ids_N))

    def fold(self, ids_N: Ids) -> None:
        """Drops rows in RAM that have no copy on disk, and never had one: they go on elsewhere."""
        self.ram.discard(ids_N)

    def living(self, slots_N: Slots) -> Slots:
        """Of slots with rows, those whose rows were not dropped."""
        return self._dropped.living(slots_N)

    def unreadable(self, ids_N: Ids) -> Ids:
        """Returns the ids of rows on disk that cannot be read any more."""
        if self._disk is None:
            return ids_N[:0]
        try:
            self._disk.read(ids_N[self.ram.find(ids_N) < 0])
        except CorruptRow as error:
            return np.array(error.ids, np.int64)
        return ids_N[:0]

    # dropping

    def statistics(self) -> Iterator[tuple[Ids, npt.NDArray[np.uint32]]]:
        """Ids and statistics of all rows that can be read, some partitions of the disk at a time. The caller waits for
        the disk. Raises DiskError."""
        slots_N = self.living(np.flatnonzero(self.ram.marks_S[: self.ram.slots_end] & np.uint16(score.USED)))
        yield self.ram.ids_S[slots_N], self.ram.statistics_S2[slots_N]
        for first in range(0, PARTITIONS, PAGE_PARTITIONS) if self.has_below else ():
            assert self._disk is not None
            try:
                below: Sequence[Records] = self._disk.partitions(first, min(first + PAGE_PARTITIONS, PARTITIONS))
            except CorruptRow as error:
                below = error.sound
            for alive in map(self._dropped.alive, below):
                here = where(alive, self.find(alive.ids_N) < 0)
                yield here.ids_N, here.statistics_N2

    def drop(self, stamp: int, highest: int, border: int, lots_L: Flags) -> None:
        """Drops all rows with stamps below `stamp` that are of rank `highest` or lower, or of rank `border` or lower
        and in one of these lots: on every tier, at once."""
        self._dropped.cut(stamp, highest, border, lots_L)
        # before one ends, the same ids may be there again, with other rows
        for demotion in self._going():
            demotion.call_off(self._dropped.among(demotion.slots_N, demotion.ids_N))
        if self._purge is not None:
            self._purge.start()

    def sweep(self) -> None:
        """Frees some slots of dropped rows."""
        self._dropped.sweep()

    def purge(self) -> Slice | None:
        """Begins to take some dropped rows off the disk. One at a time, and not beside a demotion; `finish` it."""
        if self._purge is None or self._writing is not None:
            return None
        self._writing = self._purge.slice(self._dropped.cuts)
        return self._writing

    def _purged(self, slice_: Slice) -> None:
        slots_N = self.ram.find(slice_.gone_N)
        score.mark(self.ram.marks_S, slots_N, 0, score.COPIED)  # touched since: what went was an older copy
        assert self._purge is not None
        made = self._purge.done(slice_)
        if made is not None and self._below is not None:
            self._below.close()
            self._below = made

    def _going(self) -> Iterator[Demotion]:
        yield from self._condemned
        if isinstance(self._writing, Demotion):
            yield self._writing

    def _filters(self) -> Iterator[IdFilter]:
        if self._below is not None:
            yield self._below
        if self._purge is not None and self._purge.filter is not None:
            yield self._purge.filter

    # all of it

    def page(self, first: int, n: int) -> tuple[list[Records], int]:
        """All rows of the next partitions from `first` on, about n of them, and the partition after those.

        By partition, because a row stays in its own wherever else it moves. The caller waits for the disk.
        """
        end = self._end_of_page(first, n)
        slots = [start + np.flatnonzero((part_B >= first) & (part_B < end)) for start, part_B in self._partitions()]
        here = self.ram.records(np.concatenate([np.empty(0, np.int64), *slots]))
        found = [self._dropped.alive(records) for records in here]
        if self.has_below and self._disk is not None:
            below = self._disk.partitions(first, end)
            found += [where(alive, self.find(alive.ids_N) < 0) for alive in map(self._dropped.alive, below)]
        return self._as_seen(found), end

    def _partitions(self) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
        """The partitions of the rows in RAM by slot, -1 where there is none: blocks, each with its first slot. So
        looking at all of them takes no memory."""
        for start in range(0, self.ram.slots_end, PAGE_BLOCK):
            end = min(start + PAGE_BLOCK, self.ram.slots_end)
            part_B = np.empty(end - start, np.int32)
            partitions(self.ram.ids_S[start:end], part_B)
            part_B[self.ram.marks_S[start:end] & score.USED == 0] = -1
            yield start, part_B

    def _end_of_page(self, first: int, n: int) -> int:
        """Judged by the rows in RAM, of which every partition has about the same share."""
        rows = len(self.ram) + (len(self._disk) if self._disk is not None else 0)
        count_P = np.zeros(PARTITIONS, np.int64)
        for _, part_B in self._partitions():
            count_P += np.bincount(part_B[part_B >= first], minlength=PARTITIONS)
        upto_P = np.cumsum(count_P[first:])
        fits = int(np.searchsorted(upto_P, n * len(self.ram) / max(rows, 1), side="right"))
        return min(first + max(fits, 1), PARTITIONS)

    def below(self) -> dict[str, int]:
        """What lies on disk, and how much of it has come and gone; empty without a disk."""
        if self._disk is None:
            return {}
        return {
            "rows": len(self._disk),
            "bytes": len(self._disk) * (HEADER_BYTES + KEY_BYTES + self.ram.rows.lengths[0]),
            "rows_read": self._disk.rows_read,
            "rows_written": self._disk.rows_written,
            "bytes_read": self._disk.bytes_read,
            "bytes_written": self._disk.bytes_written,
        }

    def memory_usage(self) -> dict[str, int]:
        """Bytes of RAM by purpose."""
        filters = sum(filter_.nbytes for filter_ in self._filters())
        return {**self.ram.memory_usage(), **({"filter": filters} if filters else {})}

    def close(self) -> None:
        """Gives RAM back. What is under way may still end; the disk is for `Disk` to close or drop."""
        if self._writing is not None:
            self._writing.give_up(Unavailable("the table is closed"))
            self._writing = None
        self._condemned.clear()
        self.ram.close()
        for filter_ in self._filters():
            filter_.close()

    def _search(self, highest: int, most: int) -> Slots:
        """Slots that no step holds, from where the last search ended."""
        out_N = np.empty(most, np.int64)
        for _ in range(SEARCHES):
            if self._hand >= self.ram.slots_end:
                self._hand = 0
            end = min(self._hand + SEARCH_SLOTS, self.ram.slots_end)
            found, self._hand = score.select(
                self.ram.statistics_S2, self.ram.marks_S, self._hand, end, highest, self._per_tick, out_N
            )
            if found:
                break
        return out_N[:found]
