"""Small logs, and what they hold."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ps.durability.log.folder import Folder
from ps.durability.log.log import Mode, WriteLog
from ps.durability.log.reader import End, Reader
from ps.runtime.files import Files, RawBytes

AT = Path("/data/log")


class Bytes:
    """Stands for a write."""

    def __init__(self, *pieces: RawBytes) -> None:
        self._pieces = pieces

    def encode(self) -> Sequence[RawBytes]:
        return list(self._pieces)


def by_hand(name: str, work: Callable[[], object]) -> Callable[[], None]:
    """No thread: the test does the work."""
    return lambda: None


def recovered(files: Files, path: Path = AT, shard: int = 0, after: int = 0) -> tuple[list[bytes], End]:
    """The payloads of a log, and where it ends."""
    folder = Folder(files, path, shard)
    try:
        reader = Reader(folder, after)
        records = list(reader)
        versions = [record.version for record in records]
        assert versions == list(range(after + 1, after + 1 + len(records))), "in order, and none is left out"
        return [bytes(record.payload) for record in records], reader.end
    finally:
        folder.close()


def opened(files: Files, mode: Mode = Mode.SYNC, path: Path = AT, after: int = 0, **settings: Any) -> WriteLog:
    """A log that goes on where it ended."""
    folder = Folder(files, path, 0)
    try:
        reader = Reader(folder, after)
        for _ in reader:
            pass
        return WriteLog(folder, reader.end, mode, **settings)
    except BaseException:
        folder.close()
        raise


def write(log: WriteLog, first: int, payloads: Sequence[bytes], together: bool = False) -> None:
    """Appends payloads, each as a group of its own, or all as one. The log has no thread."""
    for k, payload in enumerate(payloads):
        log.append(first + k, Bytes(payload))
        if not together:
            log.write_group()
    if together:
        log.write_group()


def no_sync(called: str, path: Path) -> None:
    """Fails every sync, as `MemoryFiles.before`."""
    if called == "sync":
        raise OSError(errno.EIO, "Input/output error", str(path))
