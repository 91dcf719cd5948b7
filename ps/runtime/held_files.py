"""Keeps small files of the kernel open once they have been read, so that a process can report how it fares even when it
has no descriptor left."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_PIECE = 1 << 16
_open: dict[tuple[int, str], int] = {}
_opening = threading.Lock()


def read_text(path: str | Path) -> str:
    """Returns the content of a file as it is now. Raises OSError where the file does not exist. Threads: any."""
    with _opening:
        key = (os.getpid(), str(path))  # in a forked child /proc/self is another
        if key not in _open:
            _open[key] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        file = _open[key]
    read, pieces = 0, []
    while piece := os.pread(file, _PIECE, read):
        pieces.append(piece)
        read += len(piece)
    return b"".join(pieces).decode()
