"""The state of a table: the one list of its parts that are saved, and its rows, page by page.

Rows keep their form: a row comes back with the bytes that it was saved with. Where it comes back, in RAM or on disk, is
decided as for any row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from ps.errors import DataLoss
from ps.kept import Kept, KeptState, joined, restored
from ps.kernels.ranking import score
from ps.storage.tier import Records, piece
from ps.table.build import Parts

CHUNK_ROWS = 1024
"""How many rows come back at once: a table keeps as many slots free as the largest of its recent requests took."""


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
            "beside": parts.beside,
        }
        """The parts that are saved."""

    def state(self) -> KeptState:
        """Returns all but the rows, see `ps.kept`; of rows, the ids of those that may not leave RAM, ascending."""
        ram = self._store.ram
        slots_N = self._store.dropped.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.STAYS)))
        return {"staying_N": np.sort(ram.ids_S[slots_N]), **joined(self.parts)}

    def rows(self) -> Iterator[Records]:
        """Yields all rows with the bytes that they have, some MiB at a time. Raises DiskError and CorruptRow."""
        return self._store.pages.rows()

    def restore(self, state: KeptState) -> None:
        """Takes over what `state` has returned; the table is as it was made. Raises ConfigError."""
        restored(self.parts, state)
        self._rows_in_ram()  # its demand is known when tables are given their shares

    def take_rows(self, state: KeptState, pages: Iterable[Records]) -> None:
        """Takes what `rows` has yielded, after `restore` has been given the same state. Raises DataLoss where these are
        fewer rows or more than there were, ResourceExhausted, DiskFull and DiskError."""
        taken = 0
        for page in pages:
            for start in range(0, len(page), CHUNK_ROWS):
                records = piece(page, start, start + CHUNK_ROWS)
                self._store.take_in(records, np.isin(records.ids_N, state["staying_N"]), self._rows_in_ram())
            taken += len(page)
        if taken != self._ranking.total:
            raise DataLoss(
                f"table {self._name!r}: {taken:,} rows came back of the {self._ranking.total:,} that were saved: take "
                "an older checkpoint"
            )
        self._cold.moved()
