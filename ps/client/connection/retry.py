"""Deadlines, and retries until them.

Only errors that another attempt can fix are retried: no answer came (Unavailable), or the shard said when to retry
(ResourceExhausted with a hint). Writes are safe to retry because the shard's ledger knows them by their sequence.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TypeVar

from ps.errors import DeadlineExceeded, PsError, ResourceExhausted, Unavailable
from ps.runtime.clock import Clock
from ps.runtime.entropy import Entropy
from ps.seconds import seconds

T = TypeVar("T")

FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 2.0


class Deadline:
    """A point in time that all parts of an operation share, and the clock that it is read from."""

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        """Raises InvalidArgument unless `timeout_s` is a positive number."""
        self.timeout_s = seconds(timeout_s)
        self.clock = clock
        self._end = clock.monotonic() + self.timeout_s
        self._calls: list[Callable[[], object]] = []
        self._lock = threading.Lock()

    def at_most(self, timeout_s: float) -> Deadline:
        """Returns this deadline, or one `timeout_s` from now if that is sooner."""
        return self if self.remaining_s() <= timeout_s else Deadline(timeout_s, self.clock)

    def end(self) -> None:
        """Notes that the caller waits no more: calls under way are not retried, and calls that wait for others are
        ended."""
        with self._lock:
            self._end = -math.inf
            calls, self._calls = self._calls, []
        for end in calls:
            end()

    def when_ended(self, end: Callable[[], object]) -> None:
        """Registers a function that is called if the caller stops waiting before the deadline."""
        with self._lock:
            if self._end > -math.inf:
                self._calls.append(end)
                return
        end()

    def remaining_s(self) -> float:
        """Returns the seconds left; raises DeadlineExceeded if there are none."""
        left = self._end - self.clock.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"no answer within {self.timeout_s:g} s")
        return left


def retry(
    attempt: Callable[[int], T],
    deadline: Deadline,
    entropy: Entropy,
    before_next: Callable[[], None] = lambda: None,
    sleep: Callable[[float], object] | None = None,
) -> T:
    """Calls attempt(0), attempt(1), ... until one succeeds, and returns what it returns; or until the deadline is too
    near for another.

    `before_next` runs before each repeat (the client looks up the shard's address again). The wait is at least the time
    that the shard named, or half of a backoff that doubles, and up to twice as long. How long is drawn from
    `entropy`, so that trainers that were refused together, or lost one shard together, do not retry together. At the
    deadline the last error is raised, because it says more than "too late". `sleep`, by default that of the deadline's
    clock, may return early if waiting has become pointless.
    """
    backoff_s = FIRST_BACKOFF_S
    for number in range(1_000_000):
        try:
            return attempt(number)
        except (Unavailable, ResourceExhausted) as error:
            hint_s = error.retry_after_s if isinstance(error, ResourceExhausted) else 0.0
            if hint_s is None:
                raise
            wait_s = max(hint_s, backoff_s / 2) * (1 + entropy.random())
            if not _sleep(wait_s, deadline, sleep or deadline.clock.sleep):
                raise
            backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
        _quietly(before_next)
    raise AssertionError("unreachable: the deadline comes first")


def _sleep(wait_s: float, deadline: Deadline, sleep: Callable[[float], object]) -> bool:
    try:
        if deadline.remaining_s() <= wait_s:
            return False
    except DeadlineExceeded:
        return False
    sleep(wait_s)
    return True


def _quietly(refresh: Callable[[], None]) -> None:
    try:
        refresh()
    except PsError:
        return  # nobody to ask just now; the attempt that follows will tell
