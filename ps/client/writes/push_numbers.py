"""Numbers the pushes of a worker, table by table. A push carries its number, and shards count steps by it
(`ps.table.push_count`)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping


class PushNumbers:
    """Numbers the pushes of one client. Threads: any."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, tables: Iterable[str]) -> Mapping[str, int]:
        """Returns the numbers of a new push to these tables, by table: the first is 1."""
        with self._lock:
            self._made.update(tables)
            return {name: self._made[name] for name in tables}

    def made(self) -> dict[str, int]:
        """Returns how many pushes there were, by table."""
        with self._lock:
            return dict(self._made)

    def go_on(self, made: Mapping[str, int]) -> None:
        """Numbers the next pushes as if so many had been made."""
        with self._lock:
            self._made = Counter(made)

    def restart(self, table: str) -> None:
        """Numbers the pushes of a table from 1 again, because it is another table of the same name."""
        with self._lock:
            del self._made[table]
