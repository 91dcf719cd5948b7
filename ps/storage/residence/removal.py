"""Rows of one table that are removed by their ids, on whatever tier they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ps.arrays import Flags, Ids, Slots
from ps.errors import CorruptRow
from ps.kernels.ranking import score
from ps.storage.ram.arena import Arena
from ps.storage.residence.below import Below
from ps.storage.residence.demotion import Demotions
from ps.storage.residence.dropped import Dropped


class Removals:
    """The removals of one table. The engine thread's."""

    def __init__(
        self,
        ram: Arena,
        below: Below,
        dropped: Dropped,
        demotions: Demotions,
        finish_writing: Callable[[], None],
    ) -> None:
        """`finish_writing` waits for what is being written below, and ends it."""
        self._ram, self._below, self._dropped, self._demotions = ram, below, dropped, demotions
        self._finish_writing = finish_writing
        self.done = 0
        """How many there have been: a read that spans one is done again."""

    def discard_copies(self, ids_N: Ids) -> None:
        """Drops the copies below of rows that are in RAM: they are in RAM alone then. Raises what the tier raises, and
        has changed nothing then."""
        slots_N = self._held(ids_N)
        score.mark(self._ram.marks_S, slots_N, 0, score.GOING)
        copied_N = (slots_N >= 0) & self._copied(slots_N)
        self._below.discard(ids_N[copied_N])
        score.mark(self._ram.marks_S, slots_N[copied_N], 0, score.COPIED)

    def remove(self, ids_N: Ids) -> None:
        """Drops rows that are in RAM, or nowhere. Those below come up, and copies are discarded, before."""
        self.done += 1
        self._ram.discard(ids_N)

    def discard_below(self, ids_N: Ids) -> None:
        """Drops what is below of rows that exist, whether they are in RAM as well, and whether they can be read. Raises
        DiskFull and DiskError, and then nothing has changed."""
        slots_N = self._held(ids_N)
        copied_N = self._copied(slots_N)
        self._below.discard(ids_N[(slots_N < 0) | copied_N])
        score.mark(self._ram.marks_S, slots_N[(slots_N >= 0) & copied_N], 0, score.COPIED)

    def unreadable(self, ids_N: Ids) -> Ids:
        """Returns the ids of rows below that cannot be read any more."""
        try:
            if len(self._below):
                self._below.tier.read(ids_N[self._ram.find(ids_N) < 0])
        except CorruptRow as error:
            return np.array(error.ids, np.int64)
        return ids_N[:0]

    def _held(self, ids_N: Ids) -> Slots:
        """Returns the slots of rows that are to be removed, -1 where one is not in RAM. None is on its way down any
        more."""
        self._finish_writing()  # it may be about one of them
        for demotion in self._demotions:
            demotion.call_off(ids_N)
        return self._dropped.find(ids_N)

    def _copied(self, slots_N: Slots) -> Flags:
        """Returns which of these slots have a row that is below as well. Without a meaning for a slot of -1."""
        copied_N: Flags = self._ram.marks_S[slots_N] & score.COPIED != 0
        return copied_N
