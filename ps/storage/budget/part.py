"""Bytes for one purpose, and an account of how many of them are in use. For any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.runtime import memory
from ps.storage.budget.room import RETRY_S


class Part:
    """Bytes for one purpose. `limit` None: no bound but the host's memory, which arrays ask for in any case."""

    def __init__(self, limit: int | None, purpose: str, huge_pages: bool = True) -> None:
        self.huge_pages = huge_pages
        self.used = 0
        self.when_short: Callable[[], object] = lambda: None
        """Called when there is no room for what would fit alone: whoever does not use its bytes may let go of them."""
        self._limit = limit
        self._purpose = purpose
        self._lock = threading.Lock()

    def resize(self, change: int) -> None:
        """Adds bytes, or takes some away, where there is a limit."""
        with self._lock:
            if self._limit is not None:
                self._limit += change

    def take(self, n: int) -> None:
        """Takes n bytes of an array before they are committed; raises ResourceExhausted, and then nothing is taken."""
        memory.HOST.take(n)
        self._add(n)

    def give(self, n: int) -> None:
        """Notes that n bytes have been given back."""
        with self._lock:
            self.used -= n

    @contextmanager
    def holding(self, n: int) -> Iterator[None]:
        """Holds n bytes while a request lasts. Raises ResourceExhausted as `hold` does."""
        self.hold(n)
        try:
            yield
        finally:
            self.give(n)

    def hold(self, n: int, beside: int = 0) -> None:
        """Holds n bytes until they are given back. Raises ResourceExhausted, with a time to retry after if they fit
        alone, together with what the same request holds `beside` them."""
        self._add(n, beside)

    def _add(self, n: int, beside: int = 0) -> None:
        with self._lock:
            if self._limit is None or self.used + n <= self._limit:
                self.used += n
                return
            used, limit = self.used, self._limit
        fits_alone = n + beside <= limit
        if fits_alone:
            self.when_short()
        raise ResourceExhausted(
            f"{n:,} bytes more for {self._purpose}: {used:,} are in use of the {limit:,} that memory.ram_bytes leaves "
            + ("them" if fits_alone else "them: ask for less at once, or raise memory.ram_bytes"),
            RETRY_S if fits_alone else None,
        )
