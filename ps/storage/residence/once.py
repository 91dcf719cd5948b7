"""Work that one thread is to do, and that whoever cannot go on without it may do first."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Once:
    """Work is done by the first who comes; whoever comes meanwhile waits until it is done."""

    def __init__(self) -> None:
        self._doing = threading.Lock()
        self._done = False

    def do(self, work: Callable[[], object]) -> None:
        """Does the work unless it was done, or given up, before. The work must not raise."""
        with self._doing:
            if not self._done:
                self._done = True
                work()
