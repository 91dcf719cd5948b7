"""Rows in RAM by id: an id index, one growing array of rows, and beside it the statistics of each row.

Owns everything about slots: which are free, whose they are, when they may have changed hands. Slots never move; one is
free for another id only after `discard`, and every discard raises `layout_epoch`, by which a holder of slots knows to
look them up again. What the bytes of a row mean is known above: to `hot` and `cold`, which add the reading of them.
Statistics are two words by slot, a score (float32) and a stamp (uint32), named nowhere else.

    a row costs  its own bytes
               + 12 / load          id and slot in the index, load about 0.6: 20 bytes
               + 16                 id, score and stamp, by slot
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ps.errors import LengthMismatch
from ps.kernels.index import MAX_SLOT, IdIndex
from ps.kernels.rows import pop_free, push_free
from ps.memory import ReservedArray, host_ram_bytes
from ps.storage.tier import Flags, Ids, Records

ROW_OVERHEAD_BYTES = 36
"""What a row costs beside its own bytes."""

Slots = npt.NDArray[np.int64]


class Arena:
    """Rows of `width` items of one dtype."""

    def __init__(self, width: int, dtype: npt.DTypeLike) -> None:
        self.layout_epoch = 0
        self.row_bytes = width * np.dtype(dtype).itemsize
        max_rows = min(host_ram_bytes() // (self.row_bytes + ROW_OVERHEAD_BYTES), MAX_SLOT + 1)
        self._index = IdIndex(max_rows)
        self._rows = ReservedArray((width,), dtype, max_rows)
        self._ids = ReservedArray((), np.int64, max_rows)
        self._scores = ReservedArray((), np.float32, max_rows)
        self._stamps = ReservedArray((), np.uint32, max_rows)
        self._by_slot = (self._rows, self._ids, self._scores, self._stamps)
        self._free = -1  # the slot discarded last; in place of its id is the slot discarded before it, and so on
        self._n_free = 0
        self._used = 0  # slots below it have been given out at least once

    def __len__(self) -> int:
        return len(self._index)

    @property
    def rows_SW(self) -> npt.NDArray[Any]:  # noqa: N802  an array, so its name carries its shape
        """[slots, width]: rows of slots that are in use."""
        return self._rows.array

    @property
    def scores_S(self) -> npt.NDArray[np.float32]:  # noqa: N802
        """Importance as of the row's last push, by slot."""
        return self._scores.array

    @property
    def stamps_S(self) -> npt.NDArray[np.uint32]:  # noqa: N802
        """When that push was, by slot."""
        return self._stamps.array

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row."""
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def insert(self, ids_N: Ids, stamp: int = 0) -> Slots:
        """Gives each id, all of them new and unique, a slot with score 0. The row's bytes are whatever was there.

        Raises ResourceExhausted when memory is at its end, or for ids chosen to collide; then nothing has changed.
        """
        n = len(ids_N)
        reused = min(n, self._n_free)
        used = self._used + n - reused
        for array in self._by_slot:
            array.ensure(used)
        candidates_N = np.arange(self._used - reused, used)
        free = pop_free(self._ids.array, self._free, candidates_N[:reused])
        slots_N = np.empty(n, dtype=np.int64)
        created = self._index.find_or_insert(ids_N, candidates_N, slots_N)
        assert created == n, "insert was given an id that has a row"
        self._free, self._n_free, self._used = free, self._n_free - reused, used
        self._ids.array[slots_N] = ids_N
        self._scores.array[slots_N] = 0
        self._stamps.array[slots_N] = stamp
        return slots_N

    def discard(self, ids_N: Ids) -> Flags:
        """Drops rows; True where there was one. Takes no memory: it must work where memory is at its end."""
        slots_N = np.empty(len(ids_N), dtype=np.int64)
        erased = self._index.erase(ids_N, slots_N)
        if erased:
            self._free = push_free(self._ids.array, self._free, slots_N)
            self._n_free += erased
            self.layout_epoch += 1
        return slots_N >= 0

    def read(self, ids_N: Ids) -> list[Records]:
        """The rows of those ids that are here."""
        slots_N = self.find(ids_N)
        here_N = slots_N[slots_N >= 0]
        return [self.records(here_N)] if len(here_N) else []

    def records(self, slots_N: Slots) -> Records:
        """Copies of the rows in these slots."""
        rows_NB = self._rows.array[slots_N].view(np.uint8).reshape(len(slots_N), self.row_bytes)
        return Records(self._ids.array[slots_N], rows_NB, self._scores.array[slots_N], self._stamps.array[slots_N])

    def write(self, records: Records) -> Slots:
        """Takes rows in, also over older ones of the same id; returns their slots. All of them, or nothing changes."""
        if records.rows_NB.shape[1] != self.row_bytes:
            raise LengthMismatch(
                f"rows of {records.rows_NB.shape[1]} bytes do not fit: they have {self.row_bytes} here"
            )
        slots_N = self.find(records.ids_N)
        missing_N = np.flatnonzero(slots_N < 0)
        if len(missing_N):
            slots_N[missing_N] = self.insert(records.ids_N[missing_N])
        self._rows.array[slots_N] = np.ascontiguousarray(records.rows_NB).view(self._rows.dtype)
        self._scores.array[slots_N] = records.scores_N
        self._stamps.array[slots_N] = records.stamps_N
        return slots_N

    def page(self, cursor: int, n: int) -> tuple[Ids, Slots, int]:
        """Ids and slots of the rows in slots [cursor, cursor + n), and the next cursor, 0 at the end."""
        cursor = min(cursor, self._used)
        end = min(cursor + n, self._used)
        candidates_N = self._ids.array[cursor:end]
        slots_N = self.find(candidates_N)
        live_N = slots_N == np.arange(cursor, end)  # what a free slot has for an id has no row, or another slot
        return candidates_N[live_N], slots_N[live_N], end if end < self._used else 0

    def memory_usage(self) -> dict[str, int]:
        """Bytes by purpose, committed whether in use or not."""
        return {
            "rows": self._rows.committed_bytes,
            "index": self._index.nbytes,
            "metadata": sum(part.committed_bytes for part in (self._ids, self._scores, self._stamps)),
        }

    def close(self) -> None:
        """Gives the memory back."""
        self._index.close()
        for part in self._by_slot:
            part.close()
