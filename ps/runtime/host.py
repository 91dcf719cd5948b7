"""What memory this host has, and how much of it this process has taken."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ps.runtime import held_files
from ps.runtime.address_space import PAGE


def host_ram_bytes() -> int:
    """Returns the physical memory of this host, or of this control group if that is less: no process can outgrow it."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([host, *(limit for limit, _ in _control_groups())])


def available_bytes() -> int:
    """Returns what processes here could still get without swapping, with the file cache counted as free."""
    figures = dict(line.split()[:2] for line in held_files.read_text("/proc/meminfo").splitlines())
    host = int(figures.get("MemAvailable:", figures["MemFree:"])) * 1024
    return min([host, *(limit - used for limit, used in _control_groups())])


def _control_groups() -> list[tuple[int, int]]:
    """Returns (limit, in use) of the memory control groups that bound this process; the file cache is not counted as
    use."""
    found = []
    for line in held_files.read_text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            kind = _VERSION_1 if controllers else _VERSION_2
            for folder in {kind.folder, f"{kind.folder}{path}"}:  # in a container the first is its own group
                with suppress(OSError, ValueError, KeyError):  # not here, or without a limit ("max")
                    found.append(kind.read(Path(folder)))
    return found


class Heap(NamedTuple):
    """The memory that glibc's allocator holds: numpy's arrays, messages, RocksDB's blocks and memtables; not our mapped
    arrays."""

    held: int
    """Bytes that the allocator has from the system."""
    free: int
    """Bytes of these that nobody uses."""


def heap() -> Heap:
    """Asks the allocator what it holds now, in about 20 microseconds; nothing where libc has no mallinfo2 (glibc before
    2.33, musl)."""
    if _mallinfo2 is None:
        return Heap(0, 0)
    found = _mallinfo2()
    return Heap(found.arena + found.hblkhd, found.fordblks)


def file_pages_bytes() -> int:
    """Returns the bytes of this process's memory that lie in files: code that has been run, mostly."""
    return int(held_files.read_text("/proc/self/statm").split()[2]) * PAGE


class _Mallinfo2(ctypes.Structure):
    """The `struct mallinfo2` of malloc.h: ten numbers."""

    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("_blocks", ctypes.c_size_t * 3),
        ("hblkhd", ctypes.c_size_t),
        ("_fast", ctypes.c_size_t * 3),
        ("fordblks", ctypes.c_size_t),
        ("_top", ctypes.c_size_t),
    ]


_mallinfo2 = getattr(ctypes.CDLL(None), "mallinfo2", None)
if _mallinfo2 is not None:
    _mallinfo2.restype = _Mallinfo2


class _ControlGroupFiles(NamedTuple):
    """The files in which one version of control groups has its figures."""

    folder: str
    limit: str
    used: str
    cache: str

    def read(self, folder: Path) -> tuple[int, int]:
        statistics = dict(line.split() for line in held_files.read_text(folder / "memory.stat").splitlines())
        in_use = int(held_files.read_text(folder / self.used)) - int(statistics[self.cache])
        return int(held_files.read_text(folder / self.limit)), in_use


_VERSION_1 = _ControlGroupFiles(
    "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)
_VERSION_2 = _ControlGroupFiles("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
