"""The door to time: what time it is, and waiting until some has passed.

Whoever decides by the time takes a `Clock` as an argument, so that tests and the simulation can give another. What only
measures or reports may read `SYSTEM_CLOCK` itself.
"""

from __future__ import annotations

import time
from typing import Protocol


class Waitable(Protocol):
    """What can be waited on: a `threading.Event`, or a `threading.Condition` whose lock is held."""

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for at most `timeout` seconds, and returns whether it has happened."""


class Clock(Protocol):
    """Time, in seconds. Threads: any."""

    def monotonic(self) -> float:
        """Returns the seconds since some moment; it never goes back, and goes on at the pace of real time."""

    def wall(self) -> float:
        """Returns the seconds since 1970, as this host knows them: they may jump."""

    def sleep(self, seconds: float, /) -> None:
        """Returns when so many seconds have passed."""

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        """Waits until it happens or so many seconds have passed, and returns whether it has happened."""


class SystemClock:
    """The clock of this host. Its readings are the interpreter's own functions: a call costs no Python frame."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
    sleep = staticmethod(time.sleep)

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        """Waits as the operating system does."""
        return on.wait(timeout_s)


SYSTEM_CLOCK = SystemClock()
