"""Rows on their way out: the engine thread fills chunks, another thread sends them while the next are filled.

The engine never waits for a reader, so a pull sees one version of the shard however slow its connection is. Where a
chunk's floats lie is the caller's choice: the server gives the memory of the very message that it will send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np

from ps.shard.requests import PulledTable, PullHead, Rows
from ps.shard.steps import Resolved

CHUNK_FLOATS = 1 << 18
"""1 MiB: a transfer's good size (docs/architecture.md), and at least one row of the largest dim."""

Allocate = Callable[[int], tuple[Any, Rows]]
"""allocate(n) -> (what the reader gets, the float32 [n] in it that the engine fills)"""


def plain(n_floats: int) -> tuple[Rows, Rows]:
    """An array, to be read as it is."""
    rows = np.empty(n_floats, np.float32)
    return rows, rows


class RowStream:
    """One pull's rows. `fill` on the engine thread; `head` and iteration on the reader's."""

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._filled: SimpleQueue[Any] = SimpleQueue()  # PullHead, then chunks, then None; or an exception

    def fill(self, version: int, tables: Sequence[Resolved], return_exists: bool) -> None:
        """Reads everything, a chunk at a time. Ids that are not resolved yet are looked up with their chunk."""
        shapes = [
            PulledTable(r.table.config.dim, len(r.ids.ids_N), r.exists() if return_exists else None) for r in tables
        ]
        self._filled.put(PullHead(version, shapes))
        for cuts in _chunks(tables):
            chunk, floats = self._allocate(sum((end - start) * r.table.config.dim for r, start, end in cuts))
            used = 0
            for resolved, start, end in cuts:
                size = (end - start) * resolved.table.config.dim
                resolved.read(start, end, floats[used : used + size].reshape(end - start, -1))
                used += size
            self._filled.put(chunk)
        self._filled.put(None)

    def fail(self, error: BaseException) -> None:
        """The reader raises this."""
        self._filled.put(error)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """An error inside is the reader's."""
        try:
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def head(self) -> PullHead:
        """Waits for the head; raises what the engine raised."""
        head = self._next()
        assert isinstance(head, PullHead)
        return head

    def __iter__(self) -> Iterator[Any]:
        """The chunks that `allocate` gave, each with whole rows."""
        while (chunk := self._next()) is not None:
            yield chunk

    def _next(self) -> Any:
        item = self._filled.get()
        if isinstance(item, BaseException):
            raise item
        return item


def _chunks(tables: Sequence[Resolved]) -> Iterator[list[tuple[Resolved, int, int]]]:
    """Cuts of whole rows, [(table, start, end)], of at most CHUNK_FLOATS together; small tables share a chunk."""
    cuts: list[tuple[Resolved, int, int]] = []
    room = CHUNK_FLOATS
    for resolved in tables:
        dim, n, start = resolved.table.config.dim, len(resolved.ids.ids_N), 0
        while start < n:
            end = min(n, start + room // dim)
            if end > start:
                cuts.append((resolved, start, end))
                room -= (end - start) * dim
                start = end
            if start < n:
                yield cuts
                cuts, room = [], CHUNK_FLOATS
    if cuts:
        yield cuts
