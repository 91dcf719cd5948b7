"""Files as what must outlive a crash sees them: each call that can lose or keep data is one method.

`RealFiles` are those of the operating system. Tests give others, which crash, fail and fill up at any call
(`tests/files.py`). What a crash of the host may take is part of the contract:

- bytes that were written, until the file is synced; some of them may be there, others not
- a file that was created, renamed, linked or removed, until its folder is synced
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

RawBytes = bytes | memoryview
"""Bytes, one dimension, contiguous."""

_MOST_PIECES = 1024
"""Buffers in one call of writev (IOV_MAX)."""


class File(Protocol):
    """A file that is open to be written at its end. One thread at a time writes; another may sync meanwhile."""

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """Hands the pieces to the operating system, one after the other. Raises OSError, and then it may have taken a
        part of them."""

    def sync(self) -> None:
        """Has what was written before outlive the host. Where it raises, nobody knows what of it does, and a later sync
        that succeeds does not say so either."""

    def close(self) -> None:
        """Closes the file, and syncs nothing."""


class Files(Protocol):
    """What can be done to files and folders. All raise OSError."""

    def create(self, path: Path) -> File:
        """Makes an empty file; raises FileExistsError."""

    def append_to(self, path: Path) -> File:
        """Opens a file that exists."""

    def read(self, path: Path, start: int, n: int) -> bytes:
        """Returns n bytes from `start`, fewer where the file ends before."""

    def read_into(self, path: Path, start: int, buffer: memoryview) -> int:
        """Fills a buffer of bytes from `start` on; returns how many there were, fewer where the file ends before."""

    def size(self, path: Path) -> int:
        """Returns the bytes of a file."""

    def same(self, path: Path, other: Path) -> bool:
        """Tells whether two names are of one file."""

    def truncate(self, path: Path, size: int) -> None:
        """Cuts a file, which is durable when the file is synced."""

    def rename(self, path: Path, to: Path) -> None:
        """Gives a file another name; a file of that name is replaced."""

    def link(self, path: Path, to: Path) -> None:
        """Gives a file a second name; raises FileExistsError."""

    def remove(self, path: Path) -> None:
        """Removes a name of a file."""

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder."""

    def names(self, folder: Path) -> list[str]:
        """Returns what is in a folder, sorted."""

    def make_folder(self, path: Path) -> None:
        """Makes a folder, and those above it, where they are missing; those that it makes are durable."""

    def sync_folder(self, path: Path) -> None:
        """Has the names in a folder outlive the host."""

    def lock(self, path: Path) -> Callable[[], None]:
        """Makes a file that nobody else can lock until what is returned is called, or this process has ended. Raises
        BlockingIOError where it is locked already."""


class RealFiles:
    """The files of the operating system."""

    def create(self, path: Path) -> File:
        """Makes an empty file; raises FileExistsError."""
        return _RealFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))

    def append_to(self, path: Path) -> File:
        """Opens a file that exists."""
        return _RealFile(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))

    def read(self, path: Path, start: int, n: int) -> bytes:
        """Returns n bytes from `start`, fewer where the file ends before."""
        with path.open("rb", buffering=0) as file:
            n = min(n, max(os.fstat(file.fileno()).st_size - start, 0))
            pieces = []
            while n and (piece := os.pread(file.fileno(), n, start)):
                pieces.append(piece)
                start, n = start + len(piece), n - len(piece)
            return b"".join(pieces)

    def read_into(self, path: Path, start: int, buffer: memoryview) -> int:
        """Fills a buffer from `start` on; returns how many bytes there were."""
        done = 0
        with path.open("rb", buffering=0) as file:
            while done < len(buffer) and (n := os.preadv(file.fileno(), [buffer[done:]], start + done)):
                done += n
        return done

    def size(self, path: Path) -> int:
        """Returns the bytes of a file."""
        return path.stat().st_size

    def same(self, path: Path, other: Path) -> bool:
        """Tells whether two names are of one file."""
        return path.samefile(other)

    def truncate(self, path: Path, size: int) -> None:
        """Cuts a file, which is durable when the file is synced."""
        os.truncate(path, size)

    def rename(self, path: Path, to: Path) -> None:
        """Gives a file another name; a file of that name is replaced."""
        path.replace(to)

    def link(self, path: Path, to: Path) -> None:
        """Gives a file a second name; raises FileExistsError."""
        to.hardlink_to(path)

    def remove(self, path: Path) -> None:
        """Removes a name of a file."""
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder."""
        path.rmdir()

    def names(self, folder: Path) -> list[str]:
        """Returns what is in a folder, sorted."""
        return sorted(os.listdir(folder))

    def make_folder(self, path: Path) -> None:
        """Makes a folder, and those above it, where they are missing; those that it makes are durable."""
        if not path.is_dir():
            self.make_folder(path.parent)
            path.mkdir(exist_ok=True)
            self.sync_folder(path.parent)

    def sync_folder(self, path: Path) -> None:
        """Has the names in a folder outlive the host."""
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def lock(self, path: Path) -> Callable[[], None]:
        """Makes a file that nobody else can lock until what is returned is called, or this process has ended. Raises
        BlockingIOError where it is locked already."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(file)
            raise
        return lambda: os.close(file)


class _RealFile:
    """A descriptor that appends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """Hands over all pieces; one call mostly takes them all."""
        left = [memoryview(piece) for piece in pieces if len(piece)]
        while left:
            written = os.writev(self._descriptor, left[:_MOST_PIECES])
            done = 0
            while done < len(left) and written >= len(left[done]):
                written -= len(left[done])
                done += 1
            del left[:done]
            if written:
                left[0] = left[0][written:]

    def sync(self) -> None:
        """Waits for the disk. Then the system may take the file's memory for what comes next, which is faster than
        memory that it has not used yet: nobody reads soon what is written here."""
        os.fsync(self._descriptor)
        with suppress(OSError):  # it is a hint
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Closes the descriptor."""
        os.close(self._descriptor)
