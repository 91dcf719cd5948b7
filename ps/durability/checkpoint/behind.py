"""Writes files on a thread of its own, so that what comes next is prepared meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from crc32c import crc32c

from ps.durability.checkpoint.stores.store import FileStore, Stream
from ps.runtime.files import RawBytes

DEPTH = 3
"""How many jobs may wait."""


class Behind:
    """Carries out jobs in their order. One thread gives them."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "ps-checkpoint")
        self._waiting: deque[Future[None]] = deque()

    def run(self, job: Callable[[], None]) -> None:
        """Has a job done later. Waits while too many wait already; raises what an earlier one has raised."""
        self.wait(DEPTH - 1)
        self._waiting.append(self._thread.submit(job))

    def wait(self, most: int = 0) -> None:
        """Waits until at most so many jobs are left. Raises what one has raised."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Waits for the job that has begun, and forgets the others."""
        self._thread.shutdown(cancel_futures=True)


class Written:
    """A file that is being written, with its length and its CRC-32C so far."""

    def __init__(self, store: FileStore, path: str) -> None:
        self._stream: Stream = store.create(path)
        self.nbytes = self.crc = 0

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """Adds the pieces."""
        for piece in pieces:
            self.crc = crc32c(piece, self.crc)
            self.nbytes += len(piece)
        self._stream.write(pieces)

    def finish(self) -> None:
        """Ends the file, which outlives a crash then."""
        self._stream.finish()

    def abandon(self) -> None:
        """Gives the file up."""
        self._stream.abandon()
