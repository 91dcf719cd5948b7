"""The state of a table: the one list of its parts that are saved, and how its rows come back.

Rows keep their form: a row comes back with the bytes that it was saved with, to the tier where it was, if this shard
has such a tier. How rows are saved: `ps.storage.ram.saving`, and RocksDB's own copy for those on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.errors import DataLoss
from ps.kept import Kept, KeptState, joined, restored
from ps.kernels.ranking import score
from ps.storage.tier import Records, piece, where
from ps.table.build import Parts

CHUNK_BYTES = 32 << 20
"""Bytes of rows that come back at once."""

Page = tuple[Records, npt.NDArray[np.uint16]]
"""Rows that were in RAM, and the mark of each."""


@dataclass(frozen=True)
class SavedRows:
    """Rows of one table that were saved."""

    in_ram: Iterable[Page]
    on_disk: Iterable[Records] | None = None
    """Rows of the disk, where this shard has none; of an id that is in RAM as well it is an older form."""
    disk_is_here: bool = False
    """Whether the disk has the rows that were there, so that marks tell of it."""


class TableState:
    """Saves and restores one table. The engine thread's; it waits for the disk."""

    def __init__(self, name: str, parts: Parts, rows_in_ram: Callable[[], int]) -> None:
        """`rows_in_ram`: how many of the table's rows belong in RAM."""
        self._name, self._rows_in_ram = name, rows_in_ram
        self._store, self._cold, self._ranking = parts.store, parts.cold, parts.ranking
        self.parts: dict[str, Kept] = {
            "counts": parts.counts,
            "steps": parts.steps,
            "ranking": parts.ranking,
            "clock": parts.clock,
            "gate": parts.gate,
            "cold": parts.cold,
            "dropped": parts.store.dropped,
            "removed": parts.store.ram.removed,
            "below": parts.store.below,
            "beside": parts.beside,
        }
        """The parts that are saved."""

    def state(self) -> KeptState:
        """Returns all but the rows, see `ps.kept`; of rows, the ids of those that may not leave RAM, ascending."""
        return {"staying_N": self._staying(), **joined(self.parts)}

    def restore(self, state: KeptState) -> None:
        """Takes over what `state` has returned; the table is as it was made. Raises ConfigError."""
        restored(self.parts, state)
        self._rows_in_ram()  # its demand is known when tables are given their shares

    def take_rows(self, state: KeptState, saved: SavedRows) -> None:
        """Takes the rows that were saved, after `restore` has been given the same state. Raises DataLoss where these
        are fewer rows or more than there were, ResourceExhausted, DiskFull and DiskError."""
        store, taken, copied = self._store, 0, 0
        for page, marks_N in saved.in_ram:
            for records, some_N in _chunks(page, marks_N):
                taken_N = self._marks(state, records, some_N, saved.disk_is_here)
                here, here_N = self._not_below(state, records, taken_N, saved.disk_is_here)
                store.take_in(here, here_N, store.ram.room.most() if saved.disk_is_here else self._rows_in_ram())
                taken += len(here)
                copied += int(np.count_nonzero(here_N & score.COPIED))
        for records in saved.on_disk or ():
            alive = store.dropped.alive(records)
            lower = where(alive, store.find(alive.ids_N) < 0)
            store.take_in(lower, np.zeros(len(lower), np.uint16), self._rows_in_ram())
            taken += len(lower)
        self._check(taken, len(store.below) - copied if saved.disk_is_here else 0)
        self._cold.moved()

    def _staying(self) -> npt.NDArray[np.int64]:
        ram = self._store.ram
        if not self._cold.reserved:
            return np.empty(0, np.int64)
        slots_N = self._store.dropped.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.STAYS)))
        return np.sort(ram.ids_S[slots_N])

    def _marks(
        self, state: KeptState, records: Records, marks_N: npt.NDArray[np.uint16], disk_is_here: bool
    ) -> npt.NDArray[np.uint16]:
        """Returns the marks that rows get. Which stay, the state says: that may have changed since they were saved."""
        marks_N = marks_N & np.uint16(score.COPIED | score.DIRTY if disk_is_here else 0)
        if len(state["staying_N"]):
            marks_N[np.isin(records.ids_N, state["staying_N"])] |= np.uint16(score.STAYS)
        return marks_N

    def _not_below(
        self, state: KeptState, records: Records, marks_N: npt.NDArray[np.uint16], disk_is_here: bool
    ) -> Page:
        """Returns the rows without those that are on disk as they are, or newer. It looks where the saved checkpoint
        builds on an older one: a row of that may have gone down since, or have lost its copy there."""
        if not disk_is_here or state.get("since") is None:
            return records, marks_N
        held_N, as_new_N = self._store.below.held(records)
        marks_N &= np.uint16(score.STAYS)
        marks_N[held_N] |= np.uint16(score.COPIED | score.DIRTY)
        left_N = np.ones(len(records), np.bool_)
        left_N[as_new_N] = False
        left_N |= marks_N & score.STAYS != 0
        return where(records, left_N), marks_N[left_N]

    def _check(self, taken: int, below: int) -> None:
        """`below`: how many rows only the disk has, and perhaps some that were dropped."""
        total = self._ranking.total
        if taken > total or taken + below < total:
            raise DataLoss(
                f"table {self._name!r}: {taken + below:,} rows came back of the {total:,} that were saved: take an "
                "older checkpoint"
            )


def _chunks(page: Records, marks_N: npt.NDArray[np.uint16]) -> Iterable[Page]:
    step = max(CHUNK_BYTES // max(page.rows_NB.shape[1], 1), 1)
    for start in range(0, len(page), step):
        yield piece(page, start, start + step), marks_N[start : start + step]
