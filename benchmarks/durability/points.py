"""Places in a shard's process at which it kills itself: for `crash`, in that process only.

Files come in by argument, so those of this module die between two calls, or in the middle of one. What is no file is
wrapped where the process begins.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ps.runtime.files import File, RawBytes, RealFiles
from ps.shard import Shard
from ps.storage.disk.tier import DiskTier
from ps.storage.residence.store import Store

LOG, ROWS, DISK, MANIFEST = ".log", "rows-", "disk", "manifest.json"
"""How files of a log end, those of rows in a checkpoint begin, and what else is there."""
POINTS = {
    "group_commit": "half of a group is in the log's file",
    "group_commit_sync": "a group is written and not synced",
    "rotation": "the next file of the log exists and is empty",
    "rotation_sync": "the next file of the log has its head, and its name is not durable",
    "truncation": "a file of the log is gone, because checkpoints have what it says",
    "demotion": "rows are written to disk, and still in RAM",
    "maintenance": "rows that are on disk leave RAM",
    "checkpoint": "half of some rows is in a file of a checkpoint",
    "checkpoint_disk": "some of RocksDB's files are in a checkpoint",
    "checkpoint_part": "all files of a shard's part are there, but not what tells of them",
    "manifest": "all parts of a checkpoint are there, and its manifest has no name yet",
    "manifest_sync": "the manifest has its name, which is not durable",
    "restore": "a shard reads its rows from a checkpoint",
    "replay": "a shard carries out what its log has behind that",
}
"""The kill points: name -> what has happened then."""
AT_START = ("restore", "replay")
"""Points that a shard comes to when it starts."""
OF_COORDINATOR = ("manifest", "manifest_sync")
"""Points that the coordinator comes to."""


class Points:
    """The point at which this process dies, and when."""

    def __init__(self, reached: Path) -> None:
        """`reached`: the file that gets the name of the point."""
        self._reached = reached
        self._name, self._left = "", 0

    def arm(self, name: str, times: int) -> None:
        """Has the process die when it comes to the point for the `times`-th time from now."""
        if name not in POINTS:
            raise ValueError(f"no point {name!r}; there are {', '.join(POINTS)}")
        self._name, self._left = name, times

    def due(self, name: str) -> bool:
        """Returns whether the process is to die here, and counts that it came here."""
        if name != self._name:
            return False
        self._left -= 1
        return self._left == 0

    def die(self) -> None:
        """Notes the point, and dies."""
        with self._reached.open("a", encoding="utf-8") as file:
            file.write(self._name + "\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def pass_by(self, name: str) -> None:
        """Dies if it is due."""
        if self.due(name):
            self.die()


class DyingFiles(RealFiles):
    """Real files, between whose calls the process dies."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def create(self, path: Path) -> File:
        """Makes an empty file."""
        file = _DyingFile(super().create(path), path, self._points)
        if path.suffix == LOG:
            self._points.pass_by("rotation")
        return file

    def append_to(self, path: Path) -> File:
        """Opens a file that exists."""
        return _DyingFile(super().append_to(path), path, self._points)

    def rename(self, path: Path, to: Path) -> None:
        """Gives a file another name."""
        point = {"part.json": "checkpoint_part", MANIFEST: "manifest"}.get(to.name)
        if point is not None:
            self._points.pass_by(point)
        super().rename(path, to)
        if to.name == MANIFEST:
            self._points.pass_by("manifest_sync")

    def link(self, path: Path, to: Path) -> None:
        """Gives a file a second name."""
        if to.parent.name == DISK:
            self._points.pass_by("checkpoint_disk")
        super().link(path, to)

    def remove(self, path: Path) -> None:
        """Removes a name of a file."""
        super().remove(path)
        if path.suffix == LOG:
            self._points.pass_by("truncation")

    def read_into(self, path: Path, start: int, buffer: memoryview) -> int:
        """Reads bytes of a file."""
        if path.name.startswith(ROWS):
            self._points.pass_by("restore")
        return super().read_into(path, start, buffer)

    def sync_folder(self, path: Path) -> None:
        """Has the names in a folder outlive the host."""
        if path.name.startswith("shard-"):
            self._points.pass_by("rotation_sync")
        super().sync_folder(path)


class _DyingFile:
    """A file of the log, where a group of records is one call of `write`, or of a checkpoint."""

    def __init__(self, file: File, path: Path, points: Points) -> None:
        self._file, self._points = file, points
        self._of_log = path.suffix == LOG
        self._point = "group_commit" if self._of_log else "checkpoint" if path.name.startswith(ROWS) else ""

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """Writes all pieces, or a part of them."""
        if self._point and self._points.due(self._point):
            data = b"".join(bytes(piece) for piece in pieces)
            self._file.write([data[: len(data) // 2]])
            self._points.die()
        self._file.write(pieces)

    def sync(self) -> None:
        """Syncs the file."""
        if self._of_log:
            self._points.pass_by("group_commit_sync")
        self._file.sync()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def wrap(points: Points) -> None:
    """Has this process come by the points that are no files."""
    _after(DiskTier, "write", lambda: points.pass_by("demotion"))
    _before(Store, "finish", lambda: points.pass_by("maintenance"))
    _before(Shard, "replay", lambda: points.pass_by("replay"))


def _before(cls: type, name: str, what: Callable[[], None]) -> None:
    inner = getattr(cls, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        what()
        return inner(*arguments, **named)

    setattr(cls, name, wrapped)


def _after(cls: type, name: str, what: Callable[[], None]) -> None:
    inner = getattr(cls, name)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        answer = inner(*arguments, **named)
        what()
        return answer

    setattr(cls, name, wrapped)
