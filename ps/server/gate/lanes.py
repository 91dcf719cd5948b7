"""Limits how many calls of one kind there may be, and ends those that stall, on a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.server.gate.lines import LEAST_BYTES_PER_S, Line

GIVES_WAY_AFTER_S = 1.0
"""Seconds that a line must have been silent before it is ended because others need the room."""
RETRY_S = 0.1
LOOKS = 4
"""How often a watch looks within the silence that is allowed."""


class Lane:
    """The lines of one kind of call, whose number is limited. Threads: any."""

    def __init__(self, most: int, setting: str) -> None:
        """setting: the name of the setting that limits them, for the message of a refusal."""
        self._most = most
        self._setting = setting
        self._lines: set[Line] = set()
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._lines)

    @contextmanager
    def holding(self, line: Line) -> Iterator[None]:
        """Holds a call's line from its beginning to its end. Raises ResourceExhausted if there are too many."""
        self.enter(line)
        try:
            yield
        finally:
            self.leave(line)

    def enter(self, line: Line) -> None:
        """Adds a line. Raises ResourceExhausted if there are too many."""
        with self._changing:
            if len(self._lines) < self._most:
                self._lines.add(line)
                line.begin()
                return
        self.make_room()
        raise ResourceExhausted(f"{self._most} calls are in progress already ({self._setting})", RETRY_S)

    def leave(self, line: Line) -> None:
        """Removes a line whose call has ended. May be called again."""
        line.finish()
        with self._changing:
            self._lines.discard(line)

    def make_room(self) -> None:
        """Ends the line that has been silent longest, if that is long enough, because others need the room."""
        longest = max(self._all(), key=Line.silent_s, default=None)
        if longest is not None and longest.silent_s() > GIVES_WAY_AFTER_S:
            longest.end(
                f"nothing was sent or read for {GIVES_WAY_AFTER_S:g} s while others needed the room: the call was "
                "ended, it may be sent again"
            )

    def end_stalled(self, timeout_s: float) -> None:
        """Ends the lines that have kept the server waiting for too long."""
        for line in self._all():
            if line.stalls(timeout_s):
                line.end(
                    f"nothing was sent or read for {timeout_s:g} s (network.stall_timeout_s), or less than "
                    f"{LEAST_BYTES_PER_S:,} bytes a second: the call was ended, it may be sent again"
                )

    def _all(self) -> list[Line]:
        with self._changing:
            return list(self._lines)


class Watch:
    """A thread that ends lines which stall."""

    def __init__(self, lanes: list[Lane], timeout_s: float) -> None:
        self._lanes = lanes
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stalls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread. May be called again."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(min(self._timeout_s / LOOKS, 1.0)):
            for lane in self._lanes:
                lane.end_stalled(self._timeout_s)
