"""Callers, which wait for answers. Work for a caller that has gone is not begun, or stops at its next chunk; a write
that is being applied is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ps.errors import Unavailable


class Caller:
    """The other end of one call. Threads: any."""

    def __init__(self) -> None:
        self._gone = False
        self._then: list[Callable[[], object]] = []
        self._leaving = threading.Lock()

    @property
    def gone(self) -> bool:
        """Whether the caller waits no more."""
        return self._gone

    def check(self) -> None:
        """Raises Unavailable if the caller waits no more."""
        if self._gone:
            raise self.error()

    def error(self) -> Unavailable:
        """Returns the error that is raised after the call has ended."""
        return Unavailable("the caller has gone: nobody waits for this any more")

    def on_leave(self, then: Callable[[], object]) -> None:
        """Calls `then` when the call ends, however it ends; at once if it has ended. `then` must not wait."""
        with self._leaving:
            if not self._gone:
                self._then.append(then)
                return
        then()

    def leave(self) -> None:
        """Notes that the call has ended. May be called again."""
        with self._leaving:
            self._gone = True
            then, self._then = self._then, []
        for each in then:
            each()


class _Patient(Caller):
    """A caller that never leaves, and so keeps no functions to call then."""

    def on_leave(self, then: Callable[[], object]) -> None:
        pass

    def leave(self) -> None:
        pass


PATIENT: Caller = _Patient()
"""A caller that waits until it is answered: one of this process."""
