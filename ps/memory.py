"""Memory that grows without moving.

A `ReservedArray` reserves address space for as many rows as the host could ever hold and lets the operating system
commit pages as they are first written. So it grows without a copy and kernels see one contiguous array. Reserved space
costs nothing; only committed pages count.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.errors import ResourceExhausted

HUGE_FROM_BYTES = 8 << 20
"""Huge pages from here on: they make random access 1.5 times as fast, but would cost a small table 2 MiB an array."""

PAGE = mmap.PAGESIZE
HUGE_PAGE = 2 << 20
_MAP_NORESERVE = 0x4000  # Linux's value; the mmap module names it from Python 3.13 on


def host_ram_bytes() -> int:
    """Physical memory of this host: no array can outgrow it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class ReservedArray:
    """A zero-filled array [max_rows, *tail] of which the first `rows` given to `ensure` are in use."""

    def __init__(self, tail: tuple[int, ...], dtype: npt.DTypeLike, max_rows: int | None = None) -> None:
        self.dtype = np.dtype(dtype)
        self._row_bytes = self.dtype.itemsize * int(np.prod(tail, dtype=np.int64))
        self.max_rows = max_rows or host_ram_bytes() // self._row_bytes
        size = -(-self.max_rows * self._row_bytes // PAGE) * PAGE
        try:
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
            self._map = mmap.mmap(-1, size, flags=flags)
        except (OSError, ValueError) as error:
            raise ResourceExhausted(
                f"cannot reserve {size:,} bytes of address space ({error}): allow overcommit "
                "(vm.overcommit_memory=0 or 1) and raise the process's address space limit (ulimit -v)"
            ) from error
        n_items = self.max_rows * self._row_bytes // self.dtype.itemsize
        self.array: npt.NDArray[Any] = np.frombuffer(self._map, self.dtype, n_items).reshape(self.max_rows, *tail)
        self._committed = 0

    @property
    def committed_bytes(self) -> int:
        """Bytes of the pages that the rows in use lie on."""
        return self._committed

    def ensure(self, rows: int) -> None:
        """Makes rows [0, rows) usable; raises ResourceExhausted beyond what was reserved."""
        if rows > self.max_rows:
            raise ResourceExhausted(f"{rows:,} rows of {self._row_bytes} bytes are more than this host's memory holds")
        needed = rows * self._row_bytes
        if needed <= self._committed:
            return
        step = PAGE if needed <= HUGE_FROM_BYTES else HUGE_PAGE
        grown = min(-(-needed // step) * step, len(self._map))
        start = max(HUGE_FROM_BYTES, self._committed)
        if grown > start:
            with suppress(OSError):  # a kernel without huge pages: slower, no more
                self._map.madvise(mmap.MADV_HUGEPAGE, start, grown - start)
        self._committed = grown

    def close(self) -> None:
        """Gives the memory back. Views that callers still hold keep it mapped until they are gone."""
        self._committed = 0
        self.array = np.empty(0, self.dtype)
        try:
            self._map.close()
        except BufferError:  # a view is held somewhere: the map goes with the last of them
            del self._map
