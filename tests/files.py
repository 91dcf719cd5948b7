"""Files in memory that crash: what was not synced is lost in part, as a host that loses its power loses it.

They can also fail at any call, fill up, and stop in the middle of a write. In plain use they are like real files
(tests/unit/durability/test_files.py).
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from ps.runtime.files import File, RawBytes


class Crashed(BaseException):
    """The host is down: nothing can be done until `restart`."""


class _Inode:
    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = b""
        self.lost: tuple[int, int] | None = None
        """Bytes that a failed sync has left in memory, of which the system believes that the disk has them."""

    def sync(self) -> None:
        durable = bytearray(self.data)
        if self.lost is not None:
            start, end = self.lost
            durable[start:end] = bytes(len(durable[start:end]))
        self.synced = bytes(durable)

    def fail(self) -> None:
        if len(self.data) > len(self.synced):
            self.lost = len(self.synced), len(self.data)

    def truncate(self, size: int) -> None:
        self.data[:] = self.data[:size].ljust(size, b"\0")
        if self.lost is not None:
            self.lost = (self.lost[0], min(size, self.lost[1])) if size > self.lost[0] else None

    def after_crash(self, chance: random.Random) -> None:
        synced, now = len(self.synced), len(self.data)
        kept = bytearray(self.synced[:now] + self.data[synced : chance.randint(min(synced, now), now)])
        if now < synced and chance.random() < 0.2:  # the cut of a truncation is forgotten
            kept += self.synced[now:]
        if len(kept) > synced and chance.random() < 0.5:  # blocks reach the disk in any order
            hole = chance.randrange(synced, len(kept))
            end = chance.randint(hole, len(kept))
            kept[hole:end] = bytes(end - hole)
        self.data, self.synced, self.lost = kept, bytes(kept), None


class _Folder:
    def __init__(self) -> None:
        self.now: dict[str, _Inode | _Folder] = {}
        self.synced: dict[str, _Inode | _Folder] = {}
        self.since: list[Callable[[dict[str, _Inode | _Folder]], object]] = []
        """What was done to its names since they were synced."""

    def do(self, change: Callable[[dict[str, _Inode | _Folder]], object]) -> None:
        change(self.now)
        self.since.append(change)

    def after_crash(self, chance: random.Random) -> None:
        for change in self.since[: chance.randint(0, len(self.since))]:
            change(self.synced)
        self.now, self.since = dict(self.synced), []
        for each in self.now.values():
            each.after_crash(chance)


class MemoryFiles:
    """Files and folders of one host."""

    def __init__(self, chance: random.Random | None = None, room: int | None = None) -> None:
        self.chance = chance or random.Random(0)
        self.room = room
        """Bytes that all files together may have; None: no bound."""
        self.before: Callable[[str, Path], object] = lambda _call, _path: None
        """Called before each call, with its name: it may raise OSError, or call `crash`."""
        self.calls = 0
        self.crash_at: int | None = None
        """The number of the call that the crash comes in."""
        self._root = _Folder()
        self._locked: set[Path] = set()
        self._down = False

    # what goes wrong

    def crash(self) -> None:
        """The host goes down, in the middle of what it does."""
        self._down = True
        raise Crashed

    def restart(self) -> None:
        """What is durable is there, and some of what is not."""
        self._root.after_crash(self.chance)
        self._locked.clear()
        self._down, self.crash_at = False, None

    def kill(self) -> None:
        """The process ends, and the host does not: nothing is lost."""
        self._locked.clear()
        self._down, self.crash_at = False, None

    def spoil(self, path: Path, data: bytes) -> None:
        """The file has these bytes instead of its own."""
        inode = self._inode(path)
        inode.data[:], inode.synced = data, data

    # the calls

    def create(self, path: Path) -> File:
        self._begin("create", path)
        folder = self._folder(path.parent)
        if path.name in folder.now:
            raise _error(errno.EEXIST, path)
        inode = _Inode()
        folder.do(lambda names: names.__setitem__(path.name, inode))
        return _MemoryFile(self, path, inode)

    def append_to(self, path: Path) -> File:
        self._begin("append_to", path)
        return _MemoryFile(self, path, self._inode(path))

    def read(self, path: Path, start: int, n: int) -> bytes:
        self._begin("read", path)
        return bytes(self._inode(path).data[start : start + n])

    def read_into(self, path: Path, start: int, buffer: memoryview) -> int:
        self._begin("read_into", path)
        data = self._inode(path).data[start : start + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def size(self, path: Path) -> int:
        self._begin("size", path)
        return len(self._inode(path).data)

    def same(self, path: Path, other: Path) -> bool:
        self._begin("same", path)
        return self._find(path) is self._find(other)

    def truncate(self, path: Path, size: int) -> None:
        self._begin("truncate", path)
        self._inode(path).truncate(size)

    def rename(self, path: Path, to: Path) -> None:
        self._begin("rename", path)
        inode, target = self._inode(path), self._folder(to.parent)
        if isinstance(target.now.get(to.name), _Folder):
            raise _error(errno.EISDIR, to)
        if to.parent != path.parent:
            target.do(lambda names: names.__setitem__(to.name, inode))
            self._folder(path.parent).do(lambda names: names.pop(path.name, None))
        elif to != path:
            target.do(lambda names: names.__setitem__(to.name, names.pop(path.name, inode)))

    def link(self, path: Path, to: Path) -> None:
        self._begin("link", path)
        inode, target = self._inode(path), self._folder(to.parent)
        if to.name in target.now:
            raise _error(errno.EEXIST, to)
        target.do(lambda names: names.__setitem__(to.name, inode))

    def remove(self, path: Path) -> None:
        self._begin("remove", path)
        self._inode(path)
        self._folder(path.parent).do(lambda names: names.pop(path.name, None))

    def remove_folder(self, path: Path) -> None:
        self._begin("remove_folder", path)
        if self._folder(path).now:
            raise _error(errno.ENOTEMPTY, path)
        self._folder(path.parent).do(lambda names: names.pop(path.name, None))

    def names(self, folder: Path) -> list[str]:
        self._begin("names", folder)
        return sorted(self._folder(folder).now)

    def make_folder(self, path: Path) -> None:
        self._begin("make_folder", path)
        here = self._root
        for part in _parts(path):
            if part not in here.now:
                made = _Folder()
                here.do(lambda names, part=part, made=made: names.__setitem__(part, made))
                here.synced, here.since = dict(here.now), []
            found = here.now[part]
            if isinstance(found, _Inode):
                raise _error(errno.EEXIST, path)
            here = found

    def sync_folder(self, path: Path) -> None:
        self._begin("sync_folder", path)
        folder = self._folder(path)
        folder.synced, folder.since = dict(folder.now), []

    def lock(self, path: Path) -> Callable[[], None]:
        self._begin("lock", path)
        if path in self._locked:
            raise _error(errno.EAGAIN, path)
        folder = self._folder(path.parent)
        if path.name not in folder.now:
            inode = _Inode()
            folder.do(lambda names: names.setdefault(path.name, inode))
        self._locked.add(path)
        return lambda: self._locked.discard(path)

    # within

    def _begin(self, call: str, path: Path) -> None:
        if self._down:
            raise Crashed
        self.before(call, path)
        self.calls += 1
        if self.calls == self.crash_at:
            self.crash()

    def _write(self, path: Path, inode: _Inode, data: bytes) -> None:
        was_down = self._down
        try:
            self._begin("write", path)
        except BaseException:
            if not was_down:  # it had begun
                inode.data += data[: self.chance.randint(0, len(data))]
            raise
        if self.room is not None:
            left = max(self.room - self._used(self._root), 0)
            if len(data) > left:
                inode.data += data[:left]
                raise _error(errno.ENOSPC, path)
        inode.data += data

    def _sync(self, path: Path, inode: _Inode) -> None:
        try:
            self._begin("sync", path)
        except OSError:
            inode.fail()
            raise
        inode.sync()

    def _used(self, folder: _Folder) -> int:
        return sum(self._used(each) if isinstance(each, _Folder) else len(each.data) for each in folder.now.values())

    def _find(self, path: Path) -> _Inode | _Folder:
        here: _Inode | _Folder = self._root
        for part in _parts(path):
            if isinstance(here, _Inode):
                raise _error(errno.ENOTDIR, path)
            if part not in here.now:
                raise _error(errno.ENOENT, path)
            here = here.now[part]
        return here

    def _inode(self, path: Path) -> _Inode:
        found = self._find(path)
        if isinstance(found, _Folder):
            raise _error(errno.EISDIR, path)
        return found

    def _folder(self, path: Path) -> _Folder:
        found = self._find(path)
        if isinstance(found, _Inode):
            raise _error(errno.ENOTDIR, path)
        return found


class _MemoryFile:
    def __init__(self, files: MemoryFiles, path: Path, inode: _Inode) -> None:
        self._files, self._path, self._inode = files, path, inode

    def write(self, pieces: Sequence[RawBytes]) -> None:
        self._files._write(self._path, self._inode, b"".join(pieces))

    def sync(self) -> None:
        self._files._sync(self._path, self._inode)

    def close(self) -> None:
        pass


def _parts(path: Path) -> tuple[str, ...]:
    return path.relative_to("/").parts


def _error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))
