"""Whoever waits for an answer. Work for a caller that has gone is not begun, and stops at its next chunk; a write that
has begun to apply is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ps.errors import Unavailable


class Caller:
    """One call's other end. Threads: any."""

    def __init__(self) -> None:
        self._gone = False
        self._then: list[Callable[[], object]] = []
        self._leaving = threading.Lock()

    @property
    def gone(self) -> bool:
        """Whether nobody waits any more."""
        return self._gone

    def check(self) -> None:
        """Raises Unavailable when nobody waits any more."""
        if self._gone:
            raise self.error()

    def error(self) -> Unavailable:
        """Returns what is raised where the call has ended."""
        return Unavailable("the caller has gone: nobody waits for this any more")

    def on_leave(self, then: Callable[[], object]) -> None:
        """Has `then` called when the call ends, however it ends; at once where it has ended. `then` must not wait."""
        with self._leaving:
            if not self._gone:
                self._then.append(then)
                return
        then()

    def leave(self) -> None:
        """The call has ended. May be called again."""
        with self._leaving:
            self._gone = True
            then, self._then = self._then, []
        for each in then:
            each()


class _Patient(Caller):
    """Never leaves, and so keeps nothing to be called then."""

    def on_leave(self, then: Callable[[], object]) -> None:
        pass

    def leave(self) -> None:
        pass


PATIENT: Caller = _Patient()
"""A caller that waits until it is answered: one of this process."""
