"""All rows of a table, wherever they are, page by page.

A page has the rows of some partitions: a row stays in its own partition wherever else it moves, so one that lives
through all pages is in just one of them. Which slots have rows of which partition nobody keeps. A page that needs to
know looks at all slots, but notes the slots of a whole `Window` of partitions, a sixteenth of all or more: so pages of
any size look at all slots at most sixteen times together, and an export is linear in the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Slots
from ps.config import PARTITIONS
from ps.errors import CorruptRow
from ps.kernels.index.hashing import partitions
from ps.kernels.ranking import score
from ps.storage.ram.arena import Arena
from ps.storage.residence.below import Below
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.sight import Sight
from ps.storage.tier import Records, where

BLOCK_SLOTS = 1 << 16
"""How many slots are looked at in one go."""
WINDOWS = 16
"""A window has at least one part in so many of all slots."""
WINDOW_SLOTS = 1 << 17
"""A window has at least so many slots, where there are so many: 0.8 MB."""
KEPT = 2
"""How many windows are kept: exports that go on at the same time."""
BELOW_PARTITIONS = PARTITIONS // 64
"""How many partitions of the disk `statistics` reads at once."""


class Window:
    """The slots of the rows in RAM of partitions [first, end), kept right while rows come and go: slots that get rows
    are added, and a slot that has lost its row, or has another's, is told by its id."""

    def __init__(self, ram: Arena, first: int, end: int) -> None:
        self.first, self.end = first, end
        self._ram = ram
        slots, parts = [np.empty(0, np.uint32)], [np.empty(0, np.uint16)]
        for start in range(0, ram.slots_end, BLOCK_SLOTS):
            block_N = np.arange(start, min(start + BLOCK_SLOTS, ram.slots_end))
            here_N, parts_N = self._inside(block_N, first, end)
            slots.append(here_N.astype(np.uint32))
            parts.append(parts_N)
        parts_N = np.concatenate(parts)
        order_N = np.argsort(parts_N, kind="stable")  # 16 bits: numpy sorts them by radix
        self._slots_N = np.concatenate(slots)[order_N]
        self.starts_P = np.searchsorted(parts_N[order_N], np.arange(first, end + 1))
        """Where each partition begins among the slots, and where the last one ends."""
        self._came: list[Slots] = []
        self._room = max(len(self._slots_N), BLOCK_SLOTS)
        self.whole = True
        """False: more slots have got rows than it can note."""

    def note(self, slots_N: Slots) -> None:
        """Notes that rows have come to these slots."""
        self._room -= len(slots_N)
        if self._room < 0:
            self.whole, self._came, self._slots_N = False, [], self._slots_N[:0].copy()
        elif self.whole:
            self._came.append(slots_N)

    def slots(self, first: int, end: int) -> Slots:
        """Returns the slots of the rows of partitions [first, end) as of now, ascending."""
        noted_N = self._slots_N[self.starts_P[first - self.first] : self.starts_P[end - self.first]]
        return self._inside(np.unique(np.concatenate([noted_N.astype(np.int64), *self._came])), first, end)[0]

    def _inside(self, slots_N: Slots, first: int, end: int) -> tuple[Slots, npt.NDArray[np.uint16]]:
        """Returns those of the slots that have a row of partitions [first, end), and the partition of each."""
        slots_N = slots_N[slots_N < self._ram.slots_end]  # what is behind was given back, and is whatever it was
        parts_N = np.empty(len(slots_N), np.int32)
        partitions(self._ram.ids_S[slots_N], parts_N)
        used_N = self._ram.marks_S[slots_N] & np.uint16(score.USED) != 0
        inside_N = np.flatnonzero(used_N & (parts_N >= first) & (parts_N < end))
        return slots_N[inside_N], parts_N[inside_N].astype(np.uint16)


class Pages:
    """Reads all rows of one table. The engine thread's."""

    def __init__(self, ram: Arena, below: Below, dropped: Dropped, sight: Sight) -> None:
        self._ram, self._below, self._dropped, self._sight = ram, below, dropped, sight
        self._windows: list[Window] = []

    def page(self, first: int, n: int) -> tuple[list[Records], int]:
        """Returns all rows of the next partitions from `first` on, about n of them, and the partition after those. The
        caller waits for the disk."""
        window = self._window(first, n)
        end = self._end(window, first, n)
        found = [self._dropped.alive(records) for records in self._ram.records(window.slots(first, end))]
        if end == window.end:  # nobody will ask for more of it
            self._keep([kept for kept in self._windows if kept is not window])
        found += self._not_in_ram(self._below.partitions(first, end))
        return self._sight.as_seen(found), end

    def statistics(self) -> Iterator[tuple[Ids, npt.NDArray[np.uint32]]]:
        """Yields ids and statistics of all rows that can be read, some partitions of the disk at a time. The caller
        waits for the disk. Raises DiskError."""
        ram = self._ram
        slots_N = self._dropped.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.USED)))
        yield ram.ids_S[slots_N], ram.statistics_S2[slots_N]
        for first in self._parts_below():
            try:
                below: Sequence[Records] = self._below.partitions(first, first + BELOW_PARTITIONS)
            except CorruptRow as error:
                below = error.sound
            for here in self._not_in_ram(below):
                yield here.ids_N, here.statistics_N2

    def _parts_below(self) -> range:
        """Returns where the parts of the disk begin that are read at once; none if no row is there."""
        return range(0, PARTITIONS if len(self._below) else 0, BELOW_PARTITIONS)

    def _not_in_ram(self, below: Sequence[Records]) -> Iterator[Records]:
        """Yields rows that were read from the disk, without those that were dropped or have come up."""
        for alive in map(self._dropped.alive, below):
            yield where(alive, self._dropped.find(alive.ids_N) < 0)

    def _window(self, first: int, n: int) -> Window:
        for window in self._windows:
            if window.whole and window.first <= first < window.end:
                return window
        slots = max(WINDOW_SLOTS, self._ram.slots_end // WINDOWS, n)
        parts = max(PARTITIONS * slots // max(self._ram.slots_end, 1), 1)
        window = Window(self._ram, first, min(first + parts, PARTITIONS))
        self._keep([*[kept for kept in self._windows if kept.whole][1 - KEPT :], window])
        return window

    def _keep(self, windows: list[Window]) -> None:
        self._windows = windows
        self._ram.watchers = [window.note for window in windows]

    def _end(self, window: Window, first: int, n: int) -> int:
        """Returns where a page of about n rows ends. Those below are judged by their number: every partition has about
        the same share."""
        at = first - window.first
        in_ram_P = window.starts_P[at + 1 :] - window.starts_P[at]
        below_P = np.arange(1, len(in_ram_P) + 1) * (len(self._below) / PARTITIONS)
        return min(first + max(int(np.searchsorted(in_ram_P + below_P, n, side="right")), 1), window.end)
