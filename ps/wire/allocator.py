"""Tells glibc's allocator to keep memory that is freed.

gRPC hands every received message to Python as fresh memory. By default glibc maps a new megabyte for each and returns
it afterwards, and the page faults cost half as much as the transfer (docs/decisions/0004-keep-freed-memory.md). With
these settings up to KEEP_BYTES of freed memory stay with the process instead.
"""

from __future__ import annotations

import ctypes
import os
import threading

KEEP_BYTES = 256 << 20
ARENAS = 1
"""Arenas of a process with a budget: each keeps freed memory, and by default there are 8 for each core."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20
_SMALLEST_MMAP_THRESHOLD = 128 << 10
_lock = threading.Lock()
_keep = [KEEP_BYTES]


def keep_freed_memory(keep_bytes: int = KEEP_BYTES) -> bool:
    """Makes the allocator keep freed memory; returns whether that took effect. keep_bytes: less in a process with a
    budget; if it is called several times, the least holds.

    EMBEDDING_PS_KEEP_FREED_MEMORY=0 leaves the allocator as it is; so does another libc.
    """
    if os.environ.get("EMBEDDING_PS_KEEP_FREED_MEMORY", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    with _lock:
        _keep[0] = keep = min(_keep[0], keep_bytes)
        if keep < KEEP_BYTES and not mallopt(_M_ARENA_MAX, ARENAS):
            return False
        largest = max(min(keep // 8, _LARGEST_MMAP_THRESHOLD), _SMALLEST_MMAP_THRESHOLD)
        return bool(mallopt(_M_TRIM_THRESHOLD, keep) and mallopt(_M_MMAP_THRESHOLD, largest))
