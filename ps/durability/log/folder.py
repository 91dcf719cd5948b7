"""The folder of one shard's log, which one process at a time has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ps.durability.log.grammar import first_of, name_of
from ps.errors import DiskError
from ps.runtime.files import Files


class Folder:
    """Makes the folder where it is missing, and holds its lock. Raises DiskError."""

    def __init__(self, files: Files, path: Path, shard: int) -> None:
        """`path`: of the logs of all shards."""
        self.files = files
        self.shard = shard
        self.path = path / f"shard-{shard}"
        with translated(self.path):
            files.make_folder(self.path)
            files.sync_folder(path)  # whoever made the folder may have been killed before it could
            try:
                self.close = files.lock(self.path / "LOCK")
            except BlockingIOError:
                raise DiskError(
                    f"another process writes the log in {self.path}: end it first, or give this service a log.path of "
                    "its own"
                ) from None

    def segments(self) -> list[int]:
        """Returns the first version of each segment, ascending."""
        with translated(self.path):
            return [first for name in self.files.names(self.path) if (first := first_of(name)) is not None]

    def segment(self, first: int) -> Path:
        """Returns the path of a segment."""
        return self.path / name_of(first)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Around calls of files: their OSError becomes a DiskError."""
    try:
        yield
    except OSError as error:
        raise DiskError(f"the log in {path} cannot be used: {error}. Look at its mount and its rights") from error
