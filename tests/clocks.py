"""Clocks for tests: time that a test moves, time that moves where it is waited for, and time that passes faster."""

from __future__ import annotations

import threading

from ps.runtime.clock import SystemClock, Waitable

LOOK_S = 0.002


class ByHand:
    """Time that stands still until the test moves `now`. For several threads: whoever waits looks whether it has."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        end = self.now + seconds
        while self.now < end:
            SystemClock.sleep(LOOK_S)

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        end = self.now + timeout_s
        while self.now < end:
            if on.wait(LOOK_S):
                return True
            if isinstance(on, threading.Condition):
                # A notification that comes just as a wait ends is lost to it: whoever waits must look again.
                return self.now < end
        return on.wait(0)


class Passing(ByHand):
    """Time that has passed as soon as anybody waits for it: no wait takes any of the test's. For one thread."""

    def __init__(self, now: float = 1000.0) -> None:
        super().__init__(now)
        self.slept: list[float] = []

    def sleep(self, seconds: float, /) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        if on.wait(0):
            return True
        self.sleep(timeout_s)
        return False


class Fast(SystemClock):
    """Time that passes so many times as fast as here."""

    def __init__(self, times: float) -> None:
        self._times = times

    def monotonic(self) -> float:  # type: ignore[override]
        return SystemClock.monotonic() * self._times

    def sleep(self, seconds: float, /) -> None:  # type: ignore[override]
        SystemClock.sleep(seconds / self._times)

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        return on.wait(timeout_s / self._times)


class Hurried(SystemClock):
    """The time of here, in which no pause takes more than a fiftieth of what it should: in most tests nobody is
    overloaded, so a retry need not wait."""

    def sleep(self, seconds: float, /) -> None:  # type: ignore[override]
        SystemClock.sleep(seconds / 50)

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        return on.wait(timeout_s / 50)
