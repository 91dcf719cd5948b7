"""The files of a log that is being written: where records go, when the next file begins, which are removed.

write   the log's own thread
sync    any thread; it holds up `write` only where a file ends
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import NamedTuple

from ps.durability.log.counters import LogCounters
from ps.durability.log.folder import Folder
from ps.durability.log.grammar import HEAD_BYTES, pack_head, pack_record
from ps.durability.log.reader import End
from ps.runtime.clock import SYSTEM_CLOCK
from ps.runtime.files import File, RawBytes


class Queued(NamedTuple):
    """One write, as the log gets it."""

    version: int
    payload: Sequence[RawBytes]
    nbytes: int


class Segments:
    """The segments of one log. All raise OSError, and then nothing more can be written or synced."""

    def __init__(
        self,
        folder: Folder,
        end: End,
        segment_bytes: int,
        counters: LogCounters,
        clock: Callable[[], float] = SYSTEM_CLOCK.monotonic,
    ) -> None:
        """Cuts what a crash has left half-written, and has the rest outlive the host. `clock`: for a counter only."""
        self.written = self.synced = end.version
        """The last version that the system has, and that the disk has."""
        self._folder, self._files = folder, folder.files
        self._segment_bytes = segment_bytes
        self._counters = counters
        self._clock = clock
        self._firsts = folder.segments()
        self._crc = end.crc
        self._broken: BaseException | None = None
        self._unsynced = False
        self._turning = threading.Lock()  # held while the file is synced, or another takes its place
        for torn in end.torn:
            self._files.remove(folder.segment(torn))
            self._firsts.remove(torn)
        counters.nbytes = sum(self._files.size(folder.segment(first)) for first in self._firsts)
        self._file = self._begin(end)
        self._count()

    def write(self, group: Sequence[Queued]) -> None:
        """Hands records to the system, in as few calls as there are files."""
        self._check()
        batch: list[RawBytes] = []
        nbytes = 0
        for piece in group:
            if self._size + nbytes >= self._segment_bytes and piece.version > self._first:
                self._hand_over(batch, nbytes, piece.version - 1)
                self._turn(piece.version)
                batch, nbytes = [], 0
            head, self._crc = pack_record(piece.version, self.synced, piece.payload)
            batch += [head, *piece.payload]
            nbytes += len(head) + piece.nbytes
        self._hand_over(batch, nbytes, group[-1].version)
        self._counters.records += len(group)
        self._counters.groups += 1

    def sync(self) -> None:
        """Has all that is written outlive the host. Any thread."""
        with self._turning:
            self._sync()

    def cut_back(self) -> None:
        """Cuts off what the disk may not have, where a sync has failed: the system may believe that the disk has it,
        and would say so to the process that comes next. The thread of `write`, when it writes no more."""
        if self._unsynced:
            self._unsynced = False
            with suppress(OSError):
                self._files.truncate(self._folder.segment(self._first), self._synced_size)

    def truncate(self, version: int) -> None:
        """Removes the segments of which every record makes this version, or an older one. Any thread."""
        with self._turning:
            while len(self._firsts) > 1 and self._firsts[1] <= version + 1:
                path = self._folder.segment(self._firsts[0])
                size = self._files.size(path)
                self._files.remove(path)
                self._firsts.pop(0)
                self._counters.nbytes -= size
            self._files.sync_folder(self._folder.path)
            self._count()

    def finish(self) -> None:
        """Syncs the file, and makes the next: so that this one is known to be whole. The thread of `write`."""
        if self._size > HEAD_BYTES:
            self._turn(self.written + 1)

    def close(self) -> None:
        """Closes the file, and syncs nothing."""
        self._file.close()

    @property
    def _first(self) -> int:
        return self._firsts[-1]

    def _begin(self, end: End) -> File:
        """Goes on in a file without records. So damage in those before can be told from what a crash leaves."""
        if end.segments:
            path = self._folder.segment(end.segments[-1])
            if self._files.size(path) > end.size:
                self._counters.nbytes -= self._files.size(path) - end.size
                self._files.truncate(path, end.size)
            file = self._files.append_to(path)
            with closing(file):
                file.sync()  # of a process that was killed: it may be in the system's memory only
            if end.size == HEAD_BYTES:
                self._files.remove(path)  # the next has its name, and a head that is synced for certain
                self._firsts.remove(end.segments[-1])
                self._counters.nbytes -= end.size
        return self._create(end.version + 1)

    def _create(self, first: int) -> File:
        """Makes a segment that is empty, and durable. Where that fails, nobody is to find a head in memory only."""
        path, head = self._folder.segment(first), pack_head(self._folder.shard, first, self._crc)
        file = self._files.create(path)
        with ExitStack() as undo:
            undo.callback(self._discard, path)
            undo.callback(file.close)
            file.write([head])
            file.sync()
            self._files.sync_folder(self._folder.path)
            undo.pop_all()
        self._firsts.append(first)
        self._size = self._synced_size = len(head)
        self._counters.bytes_written += len(head)
        self._counters.nbytes += len(head)
        return file

    def _discard(self, path: Path) -> None:
        with suppress(OSError):
            self._files.remove(path)

    def _hand_over(self, batch: Sequence[RawBytes], nbytes: int, version: int) -> None:
        if not batch:
            return
        try:
            self._file.write(batch)
        except BaseException as error:
            self._broken = error
            raise
        self._counters.bytes_written += nbytes
        self._counters.nbytes += nbytes
        self._size += nbytes
        self.written = version

    def _turn(self, first: int) -> None:
        """Ends the file, and begins the next."""
        with self._turning:
            self._sync()
            try:
                file = self._create(first)
            except BaseException as error:
                self._broken = error
                raise
            self._file.close()
            self._file = file
            self._count()

    def _sync(self) -> None:
        self._check()
        written, size, started = self.written, self._size, self._clock()
        try:
            self._file.sync()
        except BaseException as error:
            self._broken, self._unsynced = error, True  # the next sync could succeed, and mean nothing
            raise
        self.synced, self._synced_size = written, size
        self._counters.fsyncs += 1
        self._counters.fsync_s += self._clock() - started

    def _check(self) -> None:
        if self._broken is not None:
            raise OSError(f"the log has failed before: {self._broken}")

    def _count(self) -> None:
        self._counters.segments, self._counters.oldest_version = len(self._firsts), self._firsts[0]
