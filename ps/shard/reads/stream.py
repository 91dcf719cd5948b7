"""Streams rows to a reader: the engine thread fills chunks, another thread sends them while the next are filled.

The engine never waits for a reader, so a pull sees one version of the shard however slow its connection is. Where a
chunk's floats lie is the caller's choice: the server gives the memory of the very message that it will send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ps.arrays import Rows
from ps.errors import LengthMismatch, Unavailable
from ps.runtime.places import Queue
from ps.shard.caller import PATIENT, Caller
from ps.shard.reads.pooled import Sums
from ps.shard.requests import Cut, PulledTable, PullHead, TableIds, Wanted
from ps.shard.steps.steps import Resolved
from ps.storage.budget.part import Part

CHUNK_FLOATS = 1 << 18
"""Floats of a chunk: 1 MiB, a good size for transfers (docs/architecture.md), and at least one row of the largest
dim."""

Allocate = Callable[[Sequence[Cut]], tuple[Any, Rows]]
"""allocate(cuts) -> (what the reader gets, the float32 [n] in it that the engine fills with just these)"""


def floats_of(cuts: Sequence[Cut]) -> int:
    """Returns how many floats these cuts have together."""
    return sum(cut.floats for cut in cuts)


def plain(cuts: Sequence[Cut]) -> tuple[Rows, Rows]:
    """Returns an array to which a chunk's floats are written as they are."""
    rows = np.empty(floats_of(cuts), np.float32)
    return rows, rows


class RowStream:
    """One pull's rows. `fill` on the engine thread; `head` and iteration on the reader's. As a context manager it
    releases everything at the end, however far its reader has come."""

    def __init__(self, allocate: Allocate, bodies: Part, filled: Queue, caller: Caller = PATIENT) -> None:
        """bodies: the budget in which the rows count until they have been read. filled: an empty queue from the engine
        to the reader. When the caller goes, the stream is closed."""
        self._allocate = allocate
        self._caller = caller
        self._bodies = bodies
        self._held = 0
        self._closed = False
        self._closing = threading.Lock()
        self._filled = filled  # PullHead, then _Chunks, then None; or an exception
        caller.on_leave(self._leave)

    def hold(self, nbytes: int) -> None:
        """Holds so many bytes before they are filled; raises ResourceExhausted, and Unavailable if the reader has
        gone."""
        with self._closing:
            if self._closed:
                raise Unavailable("the reader of this pull has gone")
            self._bodies.hold(nbytes)
            self._held = nbytes

    def close(self) -> None:
        """Releases everything when the reader is done with the stream. May be called again, and before anything is
        held."""
        with self._closing:
            held, self._held, self._closed = self._held, 0, True
        self._bodies.give(held)

    def _leave(self) -> None:
        """Notes that the rows will not be read, so that the engine need not fill more."""
        self.close()
        self.fail(Unavailable("the reader of this pull has gone"))

    def __enter__(self) -> RowStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fill(self, version: int, tables: Sequence[Resolved], wanted: Wanted) -> None:
        """Reads all rows, a chunk at a time, while there is a reader. Ids that are not resolved yet are looked up when
        their chunk is filled."""
        self._filled.put(PullHead(version, _shapes(tables, wanted)))
        sums: dict[int, Sums] = {}
        for cuts in _chunks(tables):
            if self._closed:
                return
            chunk, floats = self._allocate(cuts)
            used, later = 0, []
            for cut in cuts:
                out_ND = floats[used : used + cut.floats].reshape(cut.end - cut.start, -1)
                used += cut.floats
                resolved = tables[cut.table]
                if resolved.ids.bags is None:
                    resolved.read(cut.start, cut.end, out_ND)
                    continue
                if cut.table not in sums:
                    sums[cut.table] = Sums(resolved, self._caller)
                later.append(partial(sums[cut.table].read, cut.start, cut.end, out_ND))
            self._filled.put(_Chunk(chunk, later))
        self._filled.put(None)

    def fail(self, error: BaseException) -> None:
        """Lets the reader raise this error."""
        self._filled.put(error)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Passes an error inside of the block to the reader."""
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
        """Yields the chunks that `allocate` gave, each with whole rows."""
        while (item := self._next()) is not None:
            for fill in item.later:
                fill()
            yield item.chunk

    def _next(self) -> Any:
        item = self._filled.get()
        if item is None:
            self.close()
        if isinstance(item, BaseException):
            self.close()
            raise item
        return item


@dataclass(frozen=True)
class _Chunk:
    chunk: Any
    later: Sequence[Callable[[], None]]
    """The part that the reader's thread fills in: sums of bags."""


def _sent(ids: TableIds) -> int:
    """Returns how many rows, or sums, are sent."""
    return len(ids.ids_N) if ids.bags is None else len(ids.bags)


def _shapes(tables: Sequence[Resolved], wanted: Wanted) -> list[PulledTable]:
    shares = wanted.shares or [None] * len(tables)
    if len(shares) != len(tables):
        raise LengthMismatch(f"formats of {len(shares)} tables for a pull of {len(tables)}: give one each, or none")
    return [
        PulledTable(
            resolved.table.config.dim,
            _sent(resolved.ids),
            resolved.exists() if wanted.exists else None,
            None if share is None else resolved.important(share),
            resolved.ids.bags is not None,
            resolved.ids.table,
            resolved.ids.ids_N,
        )
        for resolved, share in zip(tables, shares, strict=True)
    ]


def _chunks(tables: Sequence[Resolved]) -> Iterator[list[Cut]]:
    """Yields cuts of whole rows of at most CHUNK_FLOATS together; small tables share a chunk."""
    cuts: list[Cut] = []
    room = CHUNK_FLOATS
    for table, resolved in enumerate(tables):
        dim, n, start = resolved.table.config.dim, _sent(resolved.ids), 0
        while start < n:
            end = min(n, start + room // dim)
            if end > start:
                cuts.append(Cut(table, start, end, dim))
                room -= (end - start) * dim
                start = end
            if start < n:
                yield cuts
                cuts, room = [], CHUNK_FLOATS
    if cuts:
        yield cuts
