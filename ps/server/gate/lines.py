"""The calls of a server as lines to their callers: how many there may be, and how long one may keep us waiting.

A call that waits for its caller's next message, or for the caller to read, holds a thread and nothing else: its place
among those that work (`performance.grpc_threads`) is another's meanwhile. So callers that stall hold nobody up. They
are still bounded: a line is ended that has been silent for `network.stall_timeout_s`, or that has kept us waiting for
longer than that and its bytes at LEAST_BYTES_PER_S explain; and where there are too many calls, or too many bytes, the
one that has been silent longest gives way. Its caller is told Unavailable, and retries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

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


class Places:
    """Places for calls that work at once. Threads: any. (A semaphore, in C.)"""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)
        self.take = self._free.get
        """Waits for a place."""

    def give(self) -> None:
        """Another may have it."""
        self._free.put(None)


class Line(Caller):
    """One call's. Threads: any; one at a time waits."""

    def __init__(
        self,
        end: End = lambda error: None,
        places: Places | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`places`: of which a call has one, from its first message on, but while it waits for its caller. None: it
        needs none."""
        super().__init__()
        self.ended: Unavailable | None = None
        """Why it was ended by us, if it was."""
        self._end = end
        self._places = places
        self._works = self._has_place = False
        self._clock = clock
        self._changing = threading.Lock()
        self._waits_since: float | None = None
        self._waited_s = 0.0
        self._moved = 0

    def begin(self) -> None:
        """The call is worked on from now on, whenever it does not wait for its caller."""
        self._works = True

    def finish(self) -> None:
        """The call is not worked on any more: it has ended, or its answer comes later. May be called again."""
        self._works = False
        self._give_place()

    def waiting(self) -> _Waiting:
        """For a `with` statement: nothing goes on but by the other end. Raises what it was ended with meanwhile."""
        return _Waiting(self)

    def begin_waiting(self) -> None:
        """`waiting` enters here: the place is another's from now on."""
        self._waits_since = self._clock()
        self._give_place()

    def end_waiting(self) -> None:
        """`waiting` leaves here: takes a place again, or raises what the line was ended with."""
        with self._changing:  # not between, say, the status of an end and the mark that it was sent
            if self._waits_since is not None:
                self._waited_s += self._clock() - self._waits_since
                self._waits_since = None
        if self._works and self._places is not None:
            self._places.take()
            self._has_place = True
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

    def _give_place(self) -> None:
        if self._has_place and self._places is not None:
            self._has_place = False
            self._places.give()


class _Waiting:
    """A context manager without a generator: every chunk passes here."""

    __slots__ = ("_line",)

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> None:
        self._line.begin_waiting()

    def __exit__(self, *_: object) -> None:
        self._line.end_waiting()


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
            yield
        finally:
            self.leave(line)

    def enter(self, line: Line) -> None:
        """One more begins. Raises ResourceExhausted where there are too many."""
        with self._changing:
            if len(self._lines) < self._most:
                self._lines.add(line)
                line.begin()
                return
        self.make_room()
        raise ResourceExhausted(f"{self._most} calls are in progress already ({self._setting})", RETRY_S)

    def leave(self, line: Line) -> None:
        """It has ended. May be called again."""
        line.finish()
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
