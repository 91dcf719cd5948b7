"""Files in a folder of this host."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ps.runtime.files import File, Files, RawBytes

SYNC_BYTES = 16 << 20
"""How many bytes are written before they are synced, if no sync is under way."""
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
"""Why a file cannot have a second name there: another file system, or one without links."""
_NEW = ".new"
"""The end of the name of a file that `put` has begun."""


class LocalStore:
    """`FileStore` of a folder."""

    def __init__(self, root: Path, files: Files) -> None:
        self.url, self.files, self._root = str(root), files, root

    def where(self, name: str) -> str:
        """See `FileStore`."""
        return str(self._root / name)

    def create(self, name: str, fresh: bool = False) -> LocalStream:
        """See `FileStore`."""
        path = self._root / name
        try:
            self.files.make_folder(path.parent)
        except FileExistsError as error:  # not the file that is to be made: a file is where a folder should be
            raise NotADirectoryError(errno.ENOTDIR, "there is a file where a folder should be", str(path)) from error
        try:
            return LocalStream(self.files.create(path))
        except FileExistsError:
            if fresh:
                raise
            self.files.remove(path)
        return LocalStream(self.files.create(path))

    def put(self, name: str, data: bytes) -> None:
        """See `FileStore`: temp, fsync, rename, fsync of the folder."""
        temporary = name + _NEW
        stream = self.create(temporary)
        try:
            stream.write([data])
            stream.finish()
        except BaseException:
            stream.abandon()
            raise
        path = self._root / name
        self.files.rename(self._root / temporary, path)
        self.files.sync_folder(path.parent)

    def size(self, name: str) -> int:
        """See `FileStore`."""
        return self.files.size(self._root / name)

    def read_into(self, name: str, start: int, buffer: memoryview) -> int:
        """See `FileStore`."""
        return self.files.read_into(self._root / name, start, buffer)

    def names(self, folder: str) -> list[str]:
        """See `FileStore`."""
        try:
            return [name for name in self.files.names(self._root / folder) if not name.endswith(_NEW)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, name: str) -> None:
        """See `FileStore`."""
        path = self._root / name
        try:
            inside = self.files.names(path)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            self.files.remove(path)
            return
        for each in inside:
            self.remove(f"{name}/{each}")
        self.files.remove_folder(path)

    def sync(self, folder: str) -> None:
        """See `FileStore`."""
        self.files.sync_folder(self._root / folder)

    def is_same(self, path: Path, name: str) -> bool:
        """See `FileStore`."""
        try:
            return self.files.same(path, self._root / name)
        except FileNotFoundError:
            return False

    def link_in(self, path: Path, name: str) -> bool:
        """See `FileStore`."""
        return self._link(path, self._root / name)

    def link(self, name: str, to: str) -> bool:
        """See `FileStore`."""
        return self._link(self._root / name, self._root / to)

    def link_out(self, name: str, path: Path) -> bool:
        """See `FileStore`."""
        return self._link(self._root / name, path)

    def _link(self, path: Path, to: Path) -> bool:
        self.files.make_folder(to.parent)
        try:
            self.files.link(path, to)
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        return True


class LocalStream:
    """`Stream` to a file of this host. What was written is synced on a thread of its own meanwhile, some MiB at a time:
    so the disk works from the beginning."""

    def __init__(self, file: File) -> None:
        self._file: File | None = file
        self._unsynced = 0
        self._thread: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """See `Stream`."""
        assert self._file is not None
        self._file.write(pieces)
        self._unsynced += sum(map(len, pieces))
        if self._unsynced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._synced()  # one that has failed must be heard: a later one may succeed all the same
            self._thread = self._thread or ThreadPoolExecutor(1, "ps-checkpoint-sync")
            self._syncing, self._unsynced = self._thread.submit(self._file.sync), 0

    def finish(self) -> None:
        """See `Stream`."""
        assert self._file is not None
        self._synced()
        self._file.sync()
        self.abandon()

    def _synced(self) -> None:
        syncing, self._syncing = self._syncing, None
        if syncing is not None:
            syncing.result()

    def abandon(self) -> None:
        """See `Stream`."""
        file, self._file = self._file, None
        if self._thread is not None:
            self._thread.shutdown()
        if file is not None:
            with suppress(OSError):
                file.close()
