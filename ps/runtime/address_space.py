"""Stretches of a process's address space: reserved without memory, and moved with the pages that were written.

Linux commits pages as they are first written. `mremap` maps pages to another address without a copy: 50 ms for a GiB on
a busy machine.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

PAGE = mmap.PAGESIZE
HUGE_PAGE = 2 << 20
MADV_NOHUGEPAGE = 15  # Linux's value; the mmap module does not name it everywhere
_MAP_NORESERVE = 0x4000  # Linux's value; the mmap module names it from Python 3.13 on
_MAYMOVE, _FIXED, _DONTUNMAP = 1, 2, 4
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mremap.restype = ctypes.c_void_p
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)


class Reservation:
    """A stretch of at least `size` bytes, zero where nobody has written, that begins at a huge page's border. Raises
    OSError, ValueError or OverflowError where there is no room for it."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // PAGE) * PAGE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.map = mmap.mmap(-1, self.size + HUGE_PAGE, flags=flags)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.offset = -begin % HUGE_PAGE
        """The place in `map` where the bytes begin."""
        self.address = begin + self.offset

    def advise(self, advice: int, start: int, end: int) -> None:
        """Calls `madvise`; a kernel that does not know the advice is slower, no more."""
        with suppress(OSError):
            self.map.madvise(advice, self.offset + start, end - start)

    def discard(self, start: int, end: int) -> bool:
        """Gives the pages of [start, end) back to the system, and returns whether it took them. They read as zeros, and
        take memory when they are written again."""
        try:
            self.map.madvise(mmap.MADV_DONTNEED, self.offset + start, end - start)
        except OSError:
            return False
        return True

    def move(self, size: int, to: Reservation) -> None:
        """Maps the pages of the first `size` bytes to another stretch; here they read as zeros then. If it raises
        OSError, nothing has moved."""
        moved: list[tuple[int, int]] = []
        try:
            for start, end in list(_mappings(self.address, self.address + size)):
                _remap(start, end - start, to.address + start - self.address)
                moved.append((start, end))
        except OSError:
            for start, end in moved:
                _remap(to.address + start - self.address, end - start, start)
            raise

    def close(self) -> None:
        """Gives the stretch back; while views of it exist, when the last of them is gone."""
        try:
            self.map.close()
        except BufferError:
            del self.map


@cache
def can_move() -> bool:
    """Returns whether the kernel moves pages and leaves their place reserved (Linux 5.7): without that, another thread
    could get the place before it is given up."""
    here, there = Reservation(PAGE), Reservation(PAGE)
    here.map[here.offset] = 7
    try:
        here.move(PAGE, there)
        return there.map[there.offset] == 7 and here.map[here.offset] == 0
    except OSError:
        return False
    finally:
        here.close()
        there.close()


def _mappings(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Returns the kernel's mappings of a stretch, which is what it can move; huge pages have mappings of their own, for
    example."""
    with open("/proc/self/maps", encoding="utf-8") as lines:
        for line in lines:
            begin, _, stop = line.partition(" ")[0].partition("-")
            low, high = max(int(begin, 16), start), min(int(stop, 16), end)
            if low < high:
                yield low, high


def _remap(start: int, size: int, to: int) -> None:
    if _libc.mremap(start, size, size, _MAYMOVE | _FIXED | _DONTUNMAP, to) == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
