"""The hot tier: rows in RAM, float32, value and optimizer state side by side.

Owns the arena, the id index and the statistics of each row. Slots never move; a slot is free for another id only after
`discard`, and every discard raises `layout_epoch`, by which a holder of slots knows to look them up again.

    a row costs  width * 4          the row
               + 12 / load          id and slot in the index, load about 0.6: 20 bytes
               + 16                 id, frequency and last push, by slot
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.kernels.index import MAX_SLOT, IdIndex
from ps.kernels.rows import add_counts, pop_free, push_free
from ps.memory import ReservedArray, host_ram_bytes
from ps.storage.tier import RowLayout

ROW_OVERHEAD_BYTES = 36
"""What a row costs beside its own bytes."""

Ids = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]


class HotTier:
    """Rows by id, in one growing arena."""

    def __init__(self, layout: RowLayout) -> None:
        self.layout = layout
        self.layout_epoch = 0
        max_rows = min(host_ram_bytes() // (layout.row_bytes + ROW_OVERHEAD_BYTES), MAX_SLOT + 1)
        self._index = IdIndex(max_rows)
        self._rows = ReservedArray((layout.width,), np.float32, max_rows)
        self._ids = ReservedArray((), np.int64, max_rows)
        self._frequency = ReservedArray((), np.uint32, max_rows)
        self._last_push = ReservedArray((), np.uint32, max_rows)
        self._free = -1  # the slot discarded last; in place of its id is the slot discarded before it, and so on
        self._n_free = 0
        self._used = 0  # slots below it have been given out at least once

    def __len__(self) -> int:
        return len(self._index)

    @property
    def rows_SW(self) -> npt.NDArray[np.float32]:  # noqa: N802  an array, so its name carries its shape
        """The arena: rows of slots that are in use."""
        rows_SW: npt.NDArray[np.float32] = self._rows.array
        return rows_SW

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row."""
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def insert(self, ids_N: Ids) -> Slots:
        """Gives each id, all of them new and unique, a slot. The row's bytes are whatever was there: write them.

        Raises ResourceExhausted when memory is at its end, or for ids chosen to collide; then nothing has changed.
        """
        n = len(ids_N)
        reused = min(n, self._n_free)
        used = self._used + n - reused
        for array in (self._rows, self._ids, self._frequency, self._last_push):
            array.ensure(used)
        candidates_N = np.arange(self._used - reused, used)
        free = pop_free(self._ids.array, self._free, candidates_N[:reused])
        slots_N = np.empty(n, dtype=np.int64)
        created = self._index.find_or_insert(ids_N, candidates_N, slots_N)
        assert created == n, "insert was given an id that has a row"
        self._free, self._n_free = free, self._n_free - reused
        self._used = used
        self._ids.array[slots_N] = ids_N
        self._frequency.array[slots_N] = 0
        return slots_N

    def count(self, slots_N: Slots, counts_N: npt.NDArray[np.uint32], push: int) -> None:
        """Adds occurrences to the rows' frequency (saturating) and notes the push that they came with."""
        add_counts(self._frequency.array, slots_N, counts_N)
        self._last_push.array[slots_N] = push & 0xFFFF_FFFF

    def discard(self, ids_N: Ids) -> npt.NDArray[np.bool_]:
        """Drops rows; True where there was one. Takes no memory: it must work where memory is at its end."""
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        erased = self._index.erase(ids_N, slots_N)
        if erased:
            self._free = push_free(self._ids.array, self._free, slots_N)
            self._n_free += erased
            self.layout_epoch += 1
        return slots_N >= 0

    def page(self, cursor: int, n: int) -> tuple[Ids, Slots, int]:
        """Ids and slots of the rows in slots [cursor, cursor + n), and the next cursor, 0 at the end."""
        cursor = min(cursor, self._used)
        end = min(cursor + n, self._used)
        candidates_N = self._ids.array[cursor:end]
        slots_N = self.find(candidates_N)
        live_N = slots_N == np.arange(cursor, end)  # what a free slot has for an id has no row, or another slot
        return candidates_N[live_N], slots_N[live_N], end if end < self._used else 0

    def frequency(self, slots_N: Slots) -> npt.NDArray[np.uint32]:
        """Occurrences counted by pushes."""
        counts_N: npt.NDArray[np.uint32] = self._frequency.array[slots_N]
        return counts_N

    def memory_usage(self) -> dict[str, int]:
        """Bytes by purpose, committed whether in use or not."""
        return {
            "rows": self._rows.committed_bytes,
            "index": self._index.nbytes,
            "metadata": sum(part.committed_bytes for part in (self._ids, self._frequency, self._last_push)),
        }

    def close(self) -> None:
        """Gives the memory back."""
        for part in (self._index, self._rows, self._ids, self._frequency, self._last_push):
            part.close()
