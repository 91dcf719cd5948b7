"""Memory that grows without a copy, and never past what the host can give.

A `ReservedArray` reserves address space for more rows than it has and lets the operating system commit pages as they
are first written. So it grows without a copy and kernels see one contiguous array. Reserved space costs nothing; only
committed pages count, and `HostMemory` is asked before they do: a host that runs full gets no error from the system, it
gets its processes killed.
"""

from __future__ import annotations

import gc
import mmap
import threading
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ps.errors import ResourceExhausted
from ps.runtime import address_space
from ps.runtime.address_space import HUGE_PAGE, PAGE, Reservation
from ps.runtime.host import available_bytes, host_ram_bytes

HUGE_FROM_BYTES = 8 << 20
"""Arrays use huge pages from this size on. They make random access 1.5 times as fast, but would cost a small table 2
MiB for each array."""

FIRST_BYTES = 4 << 30
"""The address space that each array begins with. A table has five to ten arrays: thousands of tables have room in the
128 TiB of a process."""
GROWTH = 8
"""An array that outgrows its address space moves to this many times as much: at most twice below 256 GiB."""

FREE_SHARE = 0.05
"""The share of the host's memory that stays free, for what is not counted here and what other processes take
meanwhile."""
LOOK_AGAIN_BYTES = 64 << 20
"""Bytes that are handed out between two looks at what is available: a look costs as much as 100 rows."""


def sparse_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns zeros of which only written pages take memory. Zeros that numpy has from the allocator do so too, but
    there all of them count as used."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if not size:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype).reshape(shape)


class Memory(Protocol):
    """Whoever commits memory asks this first."""

    huge_pages: bool
    """Whether large arrays grow by huge pages."""

    def take(self, n: int) -> None:
        """Called before n bytes more are committed; raises ResourceExhausted if they must not be."""

    def give(self, n: int) -> None:
        """Called when n bytes have been given back."""


class HostMemory:
    """Refuses memory before the host runs full. Threads: any."""

    huge_pages = True

    def __init__(self, available: Callable[[], int] = available_bytes, keep_free: int | None = None) -> None:
        self._available = available
        self._keep_free = int(host_ram_bytes() * FREE_SHARE) if keep_free is None else keep_free
        self._granted = 0
        self._lock = threading.Lock()

    def take(self, n: int) -> None:
        """Called before n bytes more are committed; raises ResourceExhausted if they must not be."""
        with self._lock:
            if n > self._granted:
                free = self._available() - self._keep_free
                if n > free:
                    raise ResourceExhausted(
                        f"{n:,} bytes more would leave this host less than {self._keep_free:,} bytes of memory "
                        f"(available: {free + self._keep_free:,}): remove rows, add shards on other hosts, or end "
                        "other processes here"
                    )
                self._granted = min(free, max(n, LOOK_AGAIN_BYTES))
            self._granted -= n

    def give(self, n: int) -> None:
        """Called when n bytes have been given back. Whoever takes as many at once gets them without a look: memory
        changes hands between arrays when it is at its end."""
        with self._lock:
            self._granted = min(self._granted + n, max(self._granted, LOOK_AGAIN_BYTES))


HOST = HostMemory()
"""The host's memory, which everything in this process asks."""


class ReservedArray:
    """A zero-filled array of up to `max_rows` rows [rows, *tail], of which the first given to `ensure` are in use.

    Address space for all of them may be more than many arrays can have, so an array begins with FIRST_BYTES of it. One
    that outgrows what it has moves to GROWTH times as much: its pages are mapped there, nothing is copied. `array` is
    another one then, so nobody may hold it, or a view of it, across `ensure`.
    """

    array: npt.NDArray[Any]

    def __init__(
        self, tail: tuple[int, ...], dtype: npt.DTypeLike, max_rows: int | None = None, memory: Memory | None = None
    ) -> None:
        """`memory` is asked before any memory is committed; by default that of the host."""
        self._memory = memory or HOST
        self._tail = tail
        self.dtype = np.dtype(dtype)
        self._row_bytes = self.dtype.itemsize * int(np.prod(tail, dtype=np.int64))
        self.max_rows = max_rows or host_ram_bytes() // self._row_bytes
        self._committed = 0
        wanted = self.max_rows * self._row_bytes
        self._take(self._reserve(min(wanted, FIRST_BYTES) if address_space.can_move() else wanted))

    @property
    def committed_bytes(self) -> int:
        """Bytes of the pages that the rows in use lie on."""
        return self._committed

    def ensure(self, rows: int) -> None:
        """Makes rows [0, rows) usable; raises ResourceExhausted, and then nothing has changed."""
        if rows > self.max_rows:
            raise ResourceExhausted(
                f"{rows:,} rows of {self._row_bytes} bytes: this shard holds at most {self.max_rows:,}; add shards"
            )
        needed = rows * self._row_bytes
        if needed <= self._committed:
            return
        huge = self._memory.huge_pages and needed > HUGE_FROM_BYTES
        step = HUGE_PAGE if huge else PAGE
        if rows > len(self.array):
            self._move(needed)
        grown = min(-(-needed // step) * step, self._reservation.size)
        self._memory.take(grown - self._committed)
        start = max(HUGE_FROM_BYTES, self._committed)
        if huge and grown > start:
            self._reservation.advise(mmap.MADV_HUGEPAGE, start, grown)
        self._committed = grown

    def shrink(self, rows: int) -> None:
        """Rows from `rows` on are not needed: gives back the pages that lie behind the others. What is on them is lost,
        and so may be what is behind those rows on the last page. Never fails; what the system does not take is kept."""
        huge = self._memory.huge_pages and self._committed > HUGE_FROM_BYTES
        step = HUGE_PAGE if huge else PAGE
        kept = min(-(-rows * self._row_bytes // step) * step, self._committed)
        if kept < self._committed and self._reservation.discard(kept, self._committed):
            self._memory.give(self._committed - kept)
            self._committed = kept

    def close(self) -> None:
        """Gives the memory back. Views that callers still hold keep it mapped until they are gone."""
        self._memory.give(self._committed)
        self._committed = 0
        self.array = np.empty(0, self.dtype)
        self._reservation.close()

    def _reserve(self, size: int) -> Reservation:
        try:
            reservation = Reservation(size)
        except (OSError, ValueError, OverflowError) as error:
            raise ResourceExhausted(
                f"cannot reserve {size:,} bytes of address space ({error}): have fewer tables on a shard, raise the "
                "process's limit (ulimit -v), or allow overcommit (vm.overcommit_memory=0 or 1)"
            ) from error
        if not self._memory.huge_pages:
            reservation.advise(address_space.MADV_NOHUGEPAGE, 0, reservation.size)
        return reservation

    def _take(self, reservation: Reservation) -> None:
        rows = min(self.max_rows, reservation.size // self._row_bytes)
        self._reservation = reservation
        owner = np.frombuffer(
            reservation.map, self.dtype, rows * self._row_bytes // self.dtype.itemsize, reservation.offset
        )
        self._owner = weakref.ref(owner)  # it lives as long as any view
        self.array = owner.reshape(rows, *self._tail)

    def _move(self, needed: int) -> None:
        """Moves the array to where `needed` bytes have room. If it raises ResourceExhausted, nothing has changed."""
        wanted = min(self.max_rows * self._row_bytes, max(needed, GROWTH * self._reservation.size))
        larger = self._reserve(wanted)
        self.array = np.empty(0, self.dtype)
        try:
            self._check_unseen()
            self._reservation.move(self._committed, larger)
        except (OSError, ResourceExhausted) as error:
            self._take(self._reservation)
            larger.close()
            if isinstance(error, OSError):
                raise ResourceExhausted(f"an array cannot grow beyond {self._committed:,} bytes: {error}") from error
            raise
        before = self._reservation
        self._take(larger)
        before.close()

    def _check_unseen(self) -> None:
        """Raises if a view of the array exists: it would show the place that the pages have left. A failed request's
        traceback may hold one."""
        if self._owner() is not None:
            gc.collect()
        if self._owner() is not None:
            raise ResourceExhausted("an array that must grow is being looked at: come again", 0.05)
