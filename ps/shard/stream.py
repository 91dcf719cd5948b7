"""Rows on their way out: the engine thread fills chunks, another thread sends them while the next are filled.

The engine never waits for a reader, so a pull sees one version of the shard however slow its connection is. Chunks are
recycled: fresh memory would fault in page by page and cost as much as the gather.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from queue import SimpleQueue

import numpy as np

from ps.shard.requests import PullHead, PulledTable, Rows
from ps.shard.steps import Resolved

CHUNK_FLOATS = 1 << 18
"""1 MiB: a transfer's good size (docs/architecture.md), and at least one row of the largest dim."""

MAX_FREE_CHUNKS = 128


class ChunkPool:
    """Recycled buffers of CHUNK_FLOATS float32. Safe between threads: deque operations are atomic."""

    def __init__(self) -> None:
        self._free: deque[Rows] = deque(maxlen=MAX_FREE_CHUNKS)

    def take(self) -> Rows:
        """A chunk with any content."""
        try:
            return self._free.pop()
        except IndexError:
            return np.empty(CHUNK_FLOATS, dtype=np.float32)

    def give(self, chunk: Rows) -> None:
        """Back for the next reader."""
        self._free.append(chunk)

    @property
    def nbytes(self) -> int:
        """Bytes that wait for use."""
        return len(self._free) * CHUNK_FLOATS * 4


class RowStream:
    """One pull's rows. `fill` on the engine thread; `head` and iteration on the reader's."""

    def __init__(self, pool: ChunkPool) -> None:
        self._pool = pool
        self._filled: SimpleQueue[PullHead | tuple[Rows, int] | BaseException | None] = SimpleQueue()

    def fill(self, version: int, tables: Sequence[Resolved], return_exists: bool) -> None:
        """Gathers everything."""
        shapes = [
            PulledTable(r.table.config.dim, len(r.slots_N), r.slots_N >= 0 if return_exists else None) for r in tables
        ]
        self._filled.put(PullHead(version, shapes))
        chunk, used = self._pool.take(), 0
        for resolved in tables:
            dim, n, start = resolved.table.config.dim, len(resolved.slots_N), 0
            while start < n:
                end = min(n, start + (CHUNK_FLOATS - used) // dim)
                if end == start:
                    self._filled.put((chunk, used))
                    chunk, used = self._pool.take(), 0
                    continue
                out_ND = chunk[used : used + (end - start) * dim].reshape(end - start, dim)
                resolved.table.lookup(resolved.ids.ids_N[start:end], resolved.slots_N[start:end], out_ND)
                used += out_ND.size
                start = end
        if used:
            self._filled.put((chunk, used))
        self._filled.put(None)

    def fail(self, error: BaseException) -> None:
        """The reader raises this."""
        self._filled.put(error)

    def head(self) -> PullHead:
        """Waits for the head; raises what the engine raised."""
        head = self._next()
        assert isinstance(head, PullHead)
        return head

    def __iter__(self) -> Iterator[Rows]:
        """Flat float32 runs of whole rows. A run is valid until the next is asked for."""
        while (item := self._next()) is not None:
            assert isinstance(item, tuple)
            chunk, used = item
            yield chunk[:used]
            self._pool.give(chunk)

    def _next(self) -> PullHead | tuple[Rows, int] | None:
        item = self._filled.get()
        if isinstance(item, BaseException):
            raise item
        return item
