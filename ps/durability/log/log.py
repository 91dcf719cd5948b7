"""The log of a shard that serves: what `ps.shard.commit` appends to.

    engine                  the log's thread                          whoever answers
    append: queued  ----->  as many as wait, as one group: written
                            sync: synced                       ---->  durable(version) is done
                            (interval: another thread syncs, every interval_s)

A log that fails to write or to sync fails for good: what it has not said to be durable is never said to be. Its
process goes on, and acknowledges nothing more.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Any, Protocol

from ps.durability.log.counters import LogCounters
from ps.durability.log.folder import Folder, translated
from ps.durability.log.reader import End
from ps.durability.log.segments import Queued, Segments
from ps.durability.log.waits import Waits
from ps.errors import InternalError, LogFailed, ResourceExhausted
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.files import RawBytes
from ps.runtime.places import Start, on_thread
from ps.shard.writes.log import Log

log = logging.getLogger(__name__)

SEGMENT_BYTES = 256 << 20
MOST_WAITING_BYTES = 256 << 20
"""Bytes of writes that may wait for the log's thread, and one write more. The messages of these writes are in the
budget of messages under way until they are answered."""
RETRY_S = 0.05


class Mode(Enum):
    """When a write is durable."""

    INTERVAL = "interval"
    """When the operating system has it: it outlives the process."""
    SYNC = "sync"
    """When the disk has it: it outlives the host."""


class Encodes(Protocol):
    """A write."""

    def encode(self) -> Sequence[RawBytes]:
        """Returns its bytes. They do not change until the write is durable."""


class WriteLog:
    """Appends writes to a log. `append` is the engine's; the other methods are for any thread."""

    def __init__(
        self,
        folder: Folder,
        end: End,
        mode: Mode,
        interval_s: float = 1.0,
        segment_bytes: int = SEGMENT_BYTES,
        max_bytes: int | None = None,
        start: Start = on_thread,
        most_waiting_bytes: int = MOST_WAITING_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Goes on where the log ends, as its `Reader` says. `start`: what its threads are started by. `clock`: says
        when it is synced next. Raises DiskError.

        `max_bytes`: of its files; None: no bound.
        """
        self.counters = LogCounters()
        self.failed: str | None = None
        """Why the log has failed; None while it is well."""
        self.when_failed: Callable[[], object] = lambda: None
        """Called once, by a thread of the log."""
        self._folder = folder
        self._mode = mode
        self._max_bytes = max_bytes
        self._most_waiting = most_waiting_bytes
        with translated(folder.path):
            self._segments = Segments(folder, end, segment_bytes, self.counters)
        self._changed = threading.Condition()
        self._pieces: deque[Queued] = deque()
        self._waits = Waits(self._safe)
        self._appended = end.version
        self._interval_s = interval_s
        self._clock = clock
        self._closing = threading.Event()
        name = f"log-{folder.shard}"
        self._joins = [start(name, self._write_all)]
        if mode is Mode.INTERVAL:
            self._joins.append(start(f"{name}-sync", self._sync_often))

    def check(self) -> None:
        """Raises what refuses a write before anything is reserved for it: LogFailed, or ResourceExhausted."""
        self._check_failed()
        if self.counters.waiting_bytes >= self._most_waiting:
            raise ResourceExhausted(
                f"{self.counters.waiting_bytes:,} bytes of writes wait for the log's disk already", RETRY_S
            )
        used = self.counters.nbytes + self.counters.waiting_bytes
        if self._max_bytes is not None and used >= self._max_bytes:
            raise ResourceExhausted(
                f"the log in {self._folder.path} has {used:,} bytes, and may have {self._max_bytes:,} (log.max_bytes): "
                "make a checkpoint at checkpoint.path (psctl checkpoint create), which frees it, or raise that"
            )

    def append(self, version: int, write: Encodes) -> None:
        """Takes the write that makes `version`. It costs no I/O and copies no array."""
        pieces = write.encode()
        nbytes = sum(map(len, pieces))
        with self._changed:
            if version != self._appended + 1:
                raise InternalError(f"version {version:,} was to be logged behind version {self._appended:,}")
            self._appended = version
            if self.failed is None:  # else nobody will hear that the write was made
                self._pieces.append(Queued(version, pieces, nbytes))
                self.counters.waiting_bytes += nbytes
                self._changed.notify()

    def durable(self, version: int) -> Future[None]:
        """Returns what is done when all writes up to `version` are durable, by the mode. It raises LogFailed where they
        will not be."""
        return self._waits.until(version)

    def truncate(self, version: int) -> None:
        """Removes the segments of which every record makes this version, or an older one. Raises DiskError."""
        with translated(self._folder.path):
            self._segments.truncate(version)

    @property
    def synced(self) -> int:
        """The last version that outlives the host."""
        return self._segments.synced

    def stats(self) -> dict[str, Any]:
        """Returns counters and figures."""
        return vars(self.counters) | {"mode": self._mode.value, "synced": self.synced, "failed": self.failed}

    def write_group(self) -> bool:
        """Waits for writes, and writes those that wait; returns False at the end. The log's thread."""
        with self._changed:
            while not self._pieces and not self._closing.is_set() and self.failed is None:
                self._changed.wait()
            group, self._pieces = self._pieces, deque()
        if group and self.failed is None:
            self._try(lambda: self._write(group))
        if self.failed is not None:
            self._segments.cut_back()
        return bool(group) and self.failed is None

    def sync(self) -> None:
        """Has all that is written outlive the host. Raises LogFailed."""
        self._try(self._segments.sync)
        self._check_failed()
        self._waits.tell()

    def close(self) -> None:
        """Writes and syncs what was appended, and ends. May be called again."""
        with self._changed:
            closed = self._closing.is_set()
            self._closing.set()
            self._changed.notify_all()
        for join in self._joins:
            join()
        if closed:
            return
        while self.write_group():
            pass
        if self.failed is None:
            self._try(self._segments.finish)
            self._waits.tell()
        self._fail("the log is closed", quietly=True)
        self._segments.close()
        self._folder.close()

    def _write_all(self) -> None:
        while self.write_group():
            pass

    def _sync_often(self) -> None:
        while not self._clock.wait(self._closing, self._interval_s) and self.failed is None:
            if self._segments.synced < self._segments.written:
                self._try(self._segments.sync)

    def _write(self, group: Sequence[Queued]) -> None:
        self._segments.write(group)
        if self._mode is Mode.SYNC:
            self._segments.sync()
        with self._changed:
            if self.failed is None:
                self.counters.waiting_bytes -= sum(piece.nbytes for piece in group)
        self._waits.tell()

    def _safe(self) -> int:
        """Returns the last version that is durable: of a log that failed only what the disk has, the rest is cut
        back."""
        interval = self._mode is Mode.INTERVAL and self.failed is None
        return self._segments.written if interval else self._segments.synced

    def _try(self, what: Callable[[], object]) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001  told to all who wait, and to all who come
            self._fail(
                f"the log in {self._folder.path} failed ({type(error).__name__}: {error}): what was not acknowledged "
                "may be lost. This shard takes no writes any more: look at its disk, and start it again"
            )

    def _fail(self, why: str, quietly: bool = False) -> None:
        with self._changed:
            if self.failed is not None:
                return
            self.failed = why
            self._pieces.clear()
            self.counters.waiting_bytes = 0
            self._changed.notify_all()
        if not quietly:
            log.critical("%s", why, exc_info=True)
            self.when_failed()
        self._waits.fail(LogFailed(why))

    def _check_failed(self) -> None:
        if self.failed is not None:
            raise LogFailed(self.failed)


def outlive(history: Log, version: int) -> None:
    """Waits until what a log has up to this version outlives the host: before something that has these writes is said
    to be there, or else a host that dies takes the end of the log, and another history begins before that version.
    Raises LogFailed."""
    if isinstance(history, WriteLog):
        history.durable(version).result()
        history.sync()
