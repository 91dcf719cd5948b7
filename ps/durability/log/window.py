"""Reads records of one file in large pieces."""

from __future__ import annotations

from pathlib import Path

from ps.durability.log.grammar import RECORD, RECORD_BYTES, RecordHead, is_whole, read_record_head
from ps.runtime.files import Files

WINDOW_BYTES = 1 << 20
"""What is read at once, or one record where that is larger."""


class Window:
    """A part of a file in memory."""

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        self.size = files.size(path)
        self._files = files
        self._start = 0
        self._data = b""

    def read(self, at: int, n: int) -> memoryview:
        """Returns n bytes, fewer where the file ends. They stay as they are."""
        n = min(n, self.size - at)
        start = at - self._start
        if start < 0 or start + n > len(self._data):
            self._data = self._files.read(self.path, at, max(n, WINDOW_BYTES))
            self._start, start = at, 0
        return memoryview(self._data)[start : start + n]

    def record(self, at: int) -> tuple[RecordHead, memoryview] | None:
        """Returns the head and the payload of the record at this byte; None where there is no whole one."""
        data = self.read(at, RECORD_BYTES)
        head = read_record_head(data, 0) if len(data) == RECORD_BYTES else None
        if head is None or head.length > self.size - at - RECORD_BYTES:
            return None
        payload = self.read(at + RECORD_BYTES, head.length)
        return (head, payload) if is_whole(head, payload) else None

    def durable_behind(self, at: int) -> int:
        """Returns the last version that whole records behind this byte say was durable; 0 where there are none."""
        durable, at = 0, at + 1
        while (mark := self._find(at)) is not None:
            found = self.record(mark)
            if found is not None:
                durable = max(durable, found[0].durable)
                at = mark + RECORD_BYTES + found[0].length
            else:
                at = mark + 1
        return durable

    def _find(self, at: int) -> int | None:
        """Returns where the next mark of a record is; None where there is none."""
        while at < self.size:
            start = at - self._start
            if not 0 <= start < len(self._data) - RECORD_BYTES:
                self.read(at, WINDOW_BYTES)
                start = at - self._start
            found = self._data.find(RECORD, start)
            if found >= 0:
                return self._start + found
            at = max(self._start + len(self._data) - len(RECORD) + 1, at + 1)
        return None
