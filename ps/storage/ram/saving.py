"""Rows of one arena as they were at a cut, while the arena goes on changing: a checkpoint takes them slice by slice.

At the cut the marks of all slots are copied: the copy says which rows are still to be saved. A row that is about to
change, or to leave its slot, is copied before (`before_change`); a row that moves to another slot is saved from there
(`moved`). So what is saved are the rows of the cut, whatever is written meanwhile, and what it takes is bounded: two
bytes a slot, and the rows that were copied and that nobody has written yet (`Waiting`).

The engine thread's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Slots
from ps.kernels.ranking import score
from ps.storage.ram.cuts import Cuts
from ps.storage.tier import Records

if TYPE_CHECKING:
    from ps.storage.ram.arena import Arena

SAVED = score.COPIED | score.DIRTY | score.STAYS
"""The marks of a row that are saved."""
BLOCK_SLOTS = 1 << 14
"""How many slots are looked at in one go: 0.1 ms, if nearly all rows are left out."""
STATISTICS_BYTES = 8 + 8 + 2
"""Bytes of a saved row beside its own: id, statistics, marks."""


def forget_changes(ram: Arena) -> None:
    """Marks all rows as unchanged: from here on the marks tell what changes."""
    ram.marks_S[: ram.slots_end] &= np.uint16(0xFFFF - score.CHANGED)


class Saved(NamedTuple):
    """Rows of one table as they were at the cut, all of one length."""

    table: str
    records: Records
    marks_N: npt.NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        """Bytes of the copies."""
        return len(self.records) * STATISTICS_BYTES + self.records.rows_NB.nbytes


class Waiting:
    """Rows that were copied for one checkpoint and are not written yet, of all tables."""

    def __init__(self, limit: int) -> None:
        """`limit`: from how many bytes on nothing should be written that makes more of them."""
        self.limit = limit
        self.nbytes = 0
        """Bytes that wait, with those that are being written."""
        self.untaken = 0
        """Bytes that nobody has taken to write them."""
        self.most = 0
        """The most that ever waited."""
        self._parts: list[Saved] = []

    @property
    def full(self) -> bool:
        """Whether nothing should be written that makes more of them."""
        return self.nbytes >= self.limit

    def put(self, part: Saved) -> None:
        """Adds rows."""
        self._parts.append(part)
        self.nbytes += part.nbytes
        self.untaken += part.nbytes
        self.most = max(self.most, self.nbytes)

    def take(self) -> list[Saved]:
        """Returns the rows that wait, to be written."""
        parts, self._parts, self.untaken = self._parts, [], 0
        return parts

    def written(self, parts: Sequence[Saved]) -> None:
        """Notes that these need no memory any more."""
        self.nbytes -= sum(part.nbytes for part in parts)


class Saving:
    """The rows of one arena that are still to be saved."""

    def __init__(self, table: str, ram: Arena, dropped: Cuts, since: int | None, waiting: Waiting) -> None:
        """`dropped`: the cuts that tell rows which are gone, though they have slots still. `since`: rows with older
        stamps are left out, and those that have not changed since the last cut, if that was of the checkpoint which is
        built on. None: all rows are saved."""
        self.error: Exception | None = None
        """Why the rows cannot be saved any more."""
        self._table, self._ram, self._waiting = table, ram, waiting
        self._dropped, self._since = dropped.copy(), since or 0
        self._marks_S = ram.marks_S[: ram.slots_end].copy()
        if since is not None and ram.removed.marks_tell:
            self._marks_S[self._marks_S & np.uint16(score.CHANGED) == 0] = 0
        self._hand = 0

    @property
    def done(self) -> bool:
        """Whether all rows were copied."""
        return self._hand >= len(self._marks_S)

    def before_change(self, slots_N: Slots) -> None:
        """Copies the rows in these slots, -1 for none, if they are still to be saved. It raises nothing: a write does
        not fail because a checkpoint does."""
        try:
            inside_N = slots_N[(slots_N >= 0) & (slots_N < len(self._marks_S))]
            due_N = inside_N[self._marks_S[inside_N] & np.uint16(score.USED) != 0]
            self._copy(due_N[self._wanted(due_N)])
            self._marks_S[due_N] = 0
        except Exception as error:  # noqa: BLE001  no memory, say
            self.fail(error)

    def moved(self, from_N: Slots, to_N: Slots) -> None:
        """Notes that rows have gone from these slots to those, which were free."""
        inside_N = from_N < len(self._marks_S)
        from_N, to_N = from_N[inside_N], to_N[inside_N]
        self._marks_S[to_N] = self._marks_S[from_N]
        self._marks_S[from_N] = 0
        self._hand = min(self._hand, int(to_N.min(initial=self._hand)))

    def slice(self, nbytes: int) -> None:
        """Copies the next rows, about so many bytes of them at most, out of one block of slots."""
        most = max(nbytes // self._ram.rows.lengths[0], 1)
        end = min(self._hand + max(BLOCK_SLOTS, most), len(self._marks_S))
        slots_N = self._hand + np.flatnonzero(self._marks_S[self._hand : end] & np.uint16(score.USED))
        if len(slots_N) > 2 * most:  # it costs as much to look at their statistics as to copy them
            slots_N, end = slots_N[: 2 * most], int(slots_N[2 * most])
        living_N = slots_N[self._wanted(slots_N)]
        if len(living_N) > most:
            living_N, end = living_N[:most], int(living_N[most])
        self._copy(living_N)
        self._marks_S[self._hand : end] = 0
        self._hand = end

    def fail(self, error: Exception) -> None:
        """Gives up: nothing more is saved."""
        self.error = self.error or error
        self._marks_S = self._marks_S[:0]

    def _copy(self, slots_N: Slots) -> None:
        marks_N = self._marks_S[slots_N] & np.uint16(SAVED)
        ram = self._ram
        for here_N, rows_NB in ram.rows.copies(slots_N):
            at_N = slots_N[here_N]
            records = Records(ram.ids_S[at_N], rows_NB, ram.scores_S2[at_N, 0], ram.statistics_S2[at_N, 1])
            self._waiting.put(Saved(self._table, records, marks_N[here_N]))

    def _wanted(self, slots_N: Slots) -> npt.NDArray[np.bool_]:
        """Returns which of these rows, unchanged since the cut, are to be saved."""
        statistics_N2 = self._ram.statistics_S2[slots_N]
        wanted_N: npt.NDArray[np.bool_] = statistics_N2[:, 1] >= self._since
        return wanted_N & ~self._dropped.met(statistics_N2)
