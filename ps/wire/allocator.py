"""glibc's allocator, told to keep what is freed.

gRPC hands every received message to Python as fresh memory. By default glibc maps a megabyte anew for each and returns
it after, and the page faults cost half as much as the transfer (docs/decisions/0004-keep-freed-memory.md). With these
settings up to KEEP_BYTES of freed memory stay with the process instead.
"""

from __future__ import annotations

import ctypes
import os

KEEP_BYTES = 256 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20


def keep_freed_memory() -> bool:
    """True if it took effect. EMBEDDING_PS_KEEP_FREED_MEMORY=0 leaves the allocator as it is; so does another libc."""
    if os.environ.get("EMBEDDING_PS_KEEP_FREED_MEMORY", "1") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, KEEP_BYTES) and mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD))
