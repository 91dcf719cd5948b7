"""Answers those who wait until a version is durable. Threads: any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from ps.errors import LogFailed


class Waits:
    """Futures by version."""

    def __init__(self, safe: Callable[[], int]) -> None:
        """`safe` returns the last version that is durable; it only grows until `fail`."""
        self._safe = safe
        self._waits: list[tuple[int, Future[None]]] = []
        self._failed: LogFailed | None = None
        self._lock = threading.Lock()

    def until(self, version: int) -> Future[None]:
        """Returns what is done when the version is durable; it raises LogFailed where it will not be."""
        future: Future[None] = Future()
        with self._lock:
            if version <= self._safe():
                future.set_result(None)
            elif self._failed is not None:
                future.set_exception(LogFailed(str(self._failed)))
            else:
                self._waits.append((version, future))
        return future

    def tell(self) -> None:
        """Tells those whose version is durable now."""
        with self._lock:
            safe = self._safe()
            done = [future for version, future in self._waits if version <= safe]
            self._waits = [wait for wait in self._waits if wait[0] > safe]
        for future in done:
            future.set_result(None)

    def fail(self, error: LogFailed) -> None:
        """Tells all others, and those who come, that nothing more will be durable."""
        with self._lock:
            self._failed = error
            waits, self._waits = self._waits, []
        for _, future in waits:
            future.set_exception(LogFailed(str(error)))
