"""Lines: a line is a call as the connection to its caller. This module bounds how long a caller may keep the server
waiting.

A call that waits for its caller's next message, or for the caller to read, holds a thread and nothing else: another
call has its place among those that work (`performance.grpc_threads`) meanwhile. So callers that stall hold up no
others. They are still bounded: a line is ended if it has been silent for `network.stall_timeout_s`, or if the server
has waited for it longer than this time and its bytes at LEAST_BYTES_PER_S explain. If there are too many calls, or too
many bytes, the line that has been silent for longest is ended (`ps.server.gate.lanes`). Its caller gets Unavailable,
and may retry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from ps.errors import Unavailable
from ps.shard.caller import Caller

LEAST_BYTES_PER_S = 16 << 10
"""The least speed of a caller on a slow link, which may take as long as it needs; a caller that sends a byte now and
then is ended."""

End = Callable[[Unavailable], object]
"""A function that tells the other end that the call has ended, and makes code that waits for that end raise."""


class Places:
    """Places for calls that work at the same time. Threads: any. (A queue is used because it is a semaphore in C.)"""

    def __init__(self, count: int) -> None:
        self._free: SimpleQueue[None] = SimpleQueue()
        for _ in range(count):
            self._free.put(None)
        self.take = self._free.get
        """Waits for a place and takes it."""

    def give(self) -> None:
        """Gives a place back, for another call."""
        self._free.put(None)


class Line(Caller):
    """The line of one call. Threads: any; one at a time waits."""

    def __init__(
        self,
        clock: Callable[[], float],
        end: End = lambda error: None,
        places: Places | None = None,
    ) -> None:
        """clock: in seconds. places: the call holds one of these from its first message on, except while it waits for
        its caller. None: it needs no place."""
        super().__init__()
        self.ended: Unavailable | None = None
        """Why the server ended the call, if it did."""
        self._end = end
        self._places = places
        self._works = self._has_place = False
        self._clock = clock
        self._changing = threading.Lock()
        self._waits_since: float | None = None
        self._waited_s = 0.0
        self._moved = 0

    def begin(self) -> None:
        """Notes that the call is worked on from now on, except while it waits for its caller."""
        self._works = True

    def finish(self) -> None:
        """Notes that the call is no longer worked on: it has ended, or its answer comes later. May be called again."""
        self._works = False
        self._give_place()

    def waiting(self) -> _Waiting:
        """Returns a context for waiting for the other end. On leaving, it raises the error that the line was ended with
        meanwhile."""
        return _Waiting(self)

    def begin_waiting(self) -> None:
        """Gives the call's place to another call; `waiting` enters here."""
        self._waits_since = self._clock()
        self._give_place()

    def end_waiting(self) -> None:
        """Takes a place again, or raises the error that the line was ended with; `waiting` leaves here."""
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
        """Counts bytes that have been received or sent."""
        self._moved += nbytes

    def silent_s(self) -> float:
        """Returns for how many seconds the server has been waiting for the other end."""
        since = self._waits_since
        return 0.0 if since is None else self._clock() - since

    def stalls(self, timeout_s: float) -> bool:
        """Returns whether the other end has been silent for too long, or is too slow."""
        silent_s = self.silent_s()
        if not silent_s:
            return False
        return silent_s > timeout_s or self._waited_s + silent_s > timeout_s + self._moved / LEAST_BYTES_PER_S

    def end(self, why: str) -> None:
        """Ends the call, if the server still waits for its other end."""
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
