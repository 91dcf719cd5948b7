"""Bytes of rows of two lengths by slot: float32 rows in one pool, rows of half precision in another.

A slot says nothing of where its row is: beside it is a place, in one of the two pools. So a row changes its precision
and keeps its slot, and index, statistics, pins and steps never hear of it.

Both pools together never take more than all slots would as float32 rows: where one would grow beyond that, the other
gives back what it does not need (`Pool.trim`). So precision may change at any time without memory for it.

    a row costs, beside what it costs in any arena,  4   its place
                                                   + 8   room in the lists of free places of both pools
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Flags, Slots
from ps.errors import ResourceExhausted
from ps.kernels.rows.places import HALF, move, split
from ps.runtime.memory import Memory, ReservedArray
from ps.storage.ram.pool import Pool
from ps.storage.ram.rows import max_rows

PLACE_BYTES = 12
"""For a slot: its place, and room in the lists of free places of both pools."""


class Pools:
    """The pools of float32 and of half rows, and the place of each slot's row in one of them."""

    def __init__(self, width: int, half_items: int, memory: Memory | None = None) -> None:
        """`width`: floats of a float32 row. `half_items`: items of 16 bits of a half row."""
        full_bytes, half_bytes = 4 * width, 2 * half_items
        self.max_rows = min(max_rows(half_bytes + 8), int(HALF))
        self._slots_end = 0
        self._places = ReservedArray((), np.uint32, self.max_rows, memory)
        self.full = Pool(width, np.float32, max_rows(full_bytes + 8), memory)
        self.half = Pool(half_items, np.uint16, self.max_rows, memory)

    def is_half(self, slots_N: Slots | slice) -> Flags:
        """Which of these slots have a row of half precision."""
        flags_N: Flags = self._places.array[slots_N] >= HALF
        return flags_N

    def split(self, slots_N: Slots) -> tuple[Slots, Slots, int]:
        """The place of each slot's row in the pool of float32 rows, and in that of half rows, -1 where it is in the
        other; and how many are half. A slot of -1 is in neither."""
        full_N, half_N = np.empty(len(slots_N), np.int64), np.empty(len(slots_N), np.int64)
        halves = split(self._places.array, slots_N, full_N, half_N)
        return full_N, half_N, halves

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`."""
        self._places.ensure(slots_end)
        self._slots_end = max(self._slots_end, slots_end)
        pool = self._of(length)
        if self._is_over(pool, rows):
            self._trim(self._other(pool))
        pool.make_room(rows)

    def make_room_to_widen(self, rows: int) -> None:
        """Makes room for so many half rows to become float32, by `replace`, which cannot fail then. Raises
        ResourceExhausted."""
        if self._is_over(self.full, rows):
            self._trim(self.half)
        # Beyond that they take the memory that they had as half rows.
        left = (self._slots_end * self.full.row_bytes - self.half.committed_bytes) // self.full.row_bytes
        self.full.make_room(max(min(rows, left - len(self.full)), 0))

    def place(self, slots_N: Slots, length: int) -> None:
        """See `ArenaRows`."""
        pool = self._of(length)
        self._places.array[slots_N] = pool.take(len(slots_N)) | self._mark(pool)

    def free(self, slots_N: Slots) -> None:
        """See `ArenaRows`."""
        full_N, half_N, _ = self.split(slots_N)
        self.full.give_back(full_N[full_N >= 0])
        self.half.give_back(half_N[half_N >= 0])

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        self._places.array[to_N] = self._places.array[from_N]

    def shrink(self, slots_end: int) -> None:
        """See `ArenaRows`."""
        self._slots_end = slots_end
        self._places.shrink(slots_end)
        for pool in (self.full, self.half):
            self._trim(pool)

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        full_N, half_N, _ = self.split(slots_N)
        found = []
        for pool, places_N in ((self.full, full_N), (self.half, half_N)):
            here_N = np.flatnonzero(places_N >= 0)
            if len(here_N):
                found.append((here_N, pool.array_PW[places_N[here_N]].view(np.uint8)))
        return found

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """See `ArenaRows`."""
        pool = self._of(rows_NB.shape[1])
        other_N = slots_N[self.is_half(slots_N) != (pool is self.half)]
        self.free(other_N)
        self.place(other_N, rows_NB.shape[1])
        places_N = (self._places.array[slots_N] & ~HALF).astype(np.int64)
        pool.array_PW[places_N] = rows_NB.view(pool.array_PW.dtype)

    def replace(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """Gives slots, whose rows are all of the other length, these rows instead. Raises ResourceExhausted, and then
        nothing has changed."""
        pool = self._of(rows_NB.shape[1])
        if self._is_over(pool, len(slots_N)):
            self._trim(self._other(pool))
        if self._is_over(pool, len(slots_N)):
            self._exchange(slots_N, pool)
        else:
            pool.make_room(len(slots_N))
        self.put(slots_N, rows_NB)

    @property
    def metadata_bytes(self) -> int:
        """See `ArenaRows`."""
        return self._places.committed_bytes + self.full.metadata_bytes + self.half.metadata_bytes

    def close(self) -> None:
        """Gives the memory back."""
        for part in (self._places, self.full, self.half):
            part.close()

    def _of(self, length: int) -> Pool:
        return self.full if length == self.full.row_bytes else self.half

    def _other(self, pool: Pool) -> Pool:
        return self.half if pool is self.full else self.full

    def _mark(self, pool: Pool) -> int:
        return int(HALF) if pool is self.half else 0

    def _is_over(self, pool: Pool, rows: int) -> bool:
        """Whether the pools would take more than float32 rows in all slots, with so many places more in this one."""
        return pool.bytes_with(rows) + self._other(pool).committed_bytes > self._slots_end * self.full.row_bytes

    def _trim(self, pool: Pool) -> None:
        first, moved_P = pool.trim()
        move(self._places.array, self._slots_end, np.uint32(self._mark(pool)), first, moved_P)

    def _exchange(self, slots_N: Slots, pool: Pool) -> None:
        """Gives slots places in this pool, in the memory that they leave in the other one. Their bytes are not kept,
        unless it raises ResourceExhausted."""
        other = self._other(pool)
        ((_, before_NB),) = self.copies(slots_N)
        self.free(slots_N)
        self._trim(other)
        try:
            pool.make_room(len(slots_N))
        except ResourceExhausted:
            other.make_room(len(slots_N))  # what has just been given back
            self._places.array[slots_N] = other.take(len(slots_N)) | self._mark(other)
            self.put(slots_N, before_NB)
            raise
        self._places.array[slots_N] = pool.take(len(slots_N)) | self._mark(pool)
