"""Which of this worker's pushes of a table a push is: shards count steps by it (`ps.push_count`)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping


class PushNumbers:
    """One client's. Threads: any."""

    def __init__(self) -> None:
        self._made: Counter[str] = Counter()
        self._lock = threading.Lock()

    def next(self, tables: Iterable[str]) -> Mapping[str, int]:
        """Of a push of these tables, from 1."""
        with self._lock:
            self._made.update(tables)
            return {name: self._made[name] for name in tables}

    def start_anew(self, table: str) -> None:
        """The table is another one, of the same name."""
        with self._lock:
            del self._made[table]
