"""The health of a shard's disk: which reads and writes failed, and when to retry.

A disk that fails degrades a shard and does not stop it: rows that cannot be written stay in RAM, where they are valid,
and a row that cannot be read is an error of the request that asked for it. When to retry depends on the clock, which is
allowed because where a row is never changes a value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ps.errors import CorruptRow, DiskError, DiskFull, PsError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class DiskHealth:
    """Counts errors, and keeps the pause after a write that failed. `reading` is for any thread, the rest the
    engine's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._counting = threading.Lock()
        self._pause_s = 0.0
        self._not_before = 0.0
        self._refused: str | None = None
        self._unread: str | None = None
        self.errors = {"read": 0, "write": 0}
        """How many reads failed and how many writes were refused."""

    @property
    def degraded(self) -> str | None:
        """Why the shard is degraded; None while all is well. After a failed read the shard stays degraded until it is
        restarted; after a refused write, until a write succeeds."""
        return self._refused or self._unread

    def takes_rows(self) -> bool:
        """Returns whether it is worth trying to write rows to disk."""
        return self._clock() >= self._not_before

    def refused(self, error: PsError | MemoryError) -> float:
        """Notes that a write failed; returns the seconds to wait before the next, twice as many each time."""
        self._count("write")
        self._refused = f"rows cannot go down to disk: {error}"
        first = error.retry_after_s if isinstance(error, DiskFull) and error.retry_after_s else FIRST_PAUSE_S
        self._pause_s = min(max(first, 2 * self._pause_s), LONGEST_PAUSE_S)
        self._not_before = self._clock() + self._pause_s
        return self._pause_s

    def accepted(self) -> None:
        """Notes that a write succeeded."""
        self._refused = None
        self._pause_s = 0.0

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Guards reads: an error inside is counted and raised on to the caller."""
        try:
            yield
        except (CorruptRow, DiskError) as error:
            self._count("read")
            self._unread = f"rows on disk cannot be read: {error}"
            raise

    def _count(self, operation: str) -> None:
        with self._counting:
            self.errors[operation] += 1
