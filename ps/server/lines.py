"""The calls of a server as lines to their callers: how many there may be, and how long one may keep us waiting.

A call that waits for its caller's next message, or for the caller to read, holds a thread and nothing else: its place
among those that work (`grpc_threads`) is another's meanwhile. So callers that stall hold nobody up. They are still
bounded: a line is ended that has been silent for `stall_timeout_s`, or that has kept us waiting for longer than that
and its bytes at LEAST_BYTES_PER_S explain; and where there are too many calls, or too many bytes, the one that has been
silent longest gives way. Its caller is told Unavailable, and comes again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted, Unavailable
from ps.shard.caller import Caller

LEAST_BYTES_PER_S = 16 << 10
"""A caller on a slow link may be that slow for as long as it takes; one that sends a byte now and then may not."""
GIVES_WAY_AFTER_S = 1.0
"""Of silence, where others need the room."""
RETRY_S = 0.1
LOOKS = 4
"""In so long a silence as is allowed: how often a watch looks."""

End = Callable[[Unavailable], object]
"""Tells the other end, and has whatever waits for it raise."""


class Line(Caller):
    """One call's. Threads: any; one at a time waits."""

    def __init__(
        self,
        end: End = lambda error: None,
        working: threading.Semaphore | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`working`: of which a call takes one, but while it waits for its caller. None: it needs none."""
        super().__init__()
        self.ended: Unavailable | None = None
        """Why it was ended by us, if it was."""
        self._end = end
        self._working = working
        self._works = False
        self._clock = clock
        self._changing = threading.Lock()
        self._waits_since: float | None = None
        self._waited_s = 0.0
        self._moved = 0

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """From the beginning of a call to its end."""
        self._take_place()
        self._works = True
        try:
            yield
        finally:
            self.park()

    def park(self) -> None:
        """It does not work any more, though the call goes on: the answer comes later. May be called again."""
        if self._works:
            self._works = False
            self._give_place()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While nothing goes on but by the other end. Raises what the line was ended with meanwhile."""
        self._waits_since = self._clock()
        if self._works:
            self._give_place()
        try:
            yield
        finally:
            with self._changing:  # not between, say, the status of an end and the mark that it was sent
                self._waited_s += self._clock() - self._waits_since
                self._waits_since = None
            if self._works:
                self._take_place()
            if self.ended is not None:
                raise self.ended

    def moved(self, nbytes: int) -> None:
        """So many bytes have come, or gone."""
        self._moved += nbytes

    def silent_s(self) -> float:
        """For how long we have been waiting."""
        since = self._waits_since
        return 0.0 if since is None else self._clock() - since

    def stalls(self, timeout_s: float) -> bool:
        """Whether it has been silent for too long, or speaks too slowly."""
        silent_s = self.silent_s()
        if not silent_s:
            return False
        return silent_s > timeout_s or self._waited_s + silent_s > timeout_s + self._moved / LEAST_BYTES_PER_S

    def end(self, why: str) -> None:
        """Ends the call, if we still wait for its other end."""
        with self._changing:
            if self._waits_since is None or self.ended is not None:
                return
            self.ended = Unavailable(why)
            self._end(self.ended)

    def _take_place(self) -> None:
        if self._working is not None:
            self._working.acquire()

    def _give_place(self) -> None:
        if self._working is not None:
            self._working.release()


class Lane:
    """The lines of one kind, at most so many. Threads: any."""

    def __init__(self, most: int, setting: str) -> None:
        """`setting`: what bounds them, for those that are refused."""
        self._most = most
        self._setting = setting
        self._lines: set[Line] = set()
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._lines)

    @contextmanager
    def holding(self, line: Line) -> Iterator[None]:
        """A call, from its beginning to its end. Raises ResourceExhausted where there are too many."""
        self.enter(line)
        try:
            with line.at_work():
                yield
        finally:
            self.leave(line)

    def enter(self, line: Line) -> None:
        """One more. Raises ResourceExhausted where there are too many."""
        with self._changing:
            if len(self._lines) < self._most:
                self._lines.add(line)
                return
        self.make_room()
        raise ResourceExhausted(f"{self._most} calls are in progress already ({self._setting})", RETRY_S)

    def leave(self, line: Line) -> None:
        """One less. May be called again."""
        with self._changing:
            self._lines.discard(line)

    def make_room(self) -> None:
        """Others need room: the line that has been silent longest gives way, if that is long enough."""
        longest = max(self._all(), key=Line.silent_s, default=None)
        if longest is not None and longest.silent_s() > GIVES_WAY_AFTER_S:
            longest.end(
                f"nothing was sent or read for {GIVES_WAY_AFTER_S:g} s while others needed the room: the call was "
                "ended, it may be sent again"
            )

    def end_stalled(self, timeout_s: float) -> None:
        """Ends the lines that have kept us waiting for too long."""
        for line in self._all():
            if line.stalls(timeout_s):
                line.end(
                    f"nothing was sent or read for {timeout_s:g} s (stall_timeout_s), or less than "
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
