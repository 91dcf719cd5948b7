"""Saves the whole state of a shard while it goes on, and makes another shard of it that is the same from then on.

    cut at version v   on the engine: all but the rows is copied, the disk's files are linked, each table's marks copied
    slices             the engine copies some rows while the sink takes the last ones, where it may wait
                       a row that is about to change is copied before (`ps.storage.ram.saving`)
    files of the disk  last: it may take long to send them away, and nothing waits in RAM for that

What the state consists of is for the parts of a shard to say (`ps.kept`); how it is written is for the sink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ps.kept import KeptState
from ps.runtime.places import ENGINE, IO, Attempt, Operation
from ps.shard import Shard
from ps.shard.core import Core
from ps.shard.cut import Cut, Since
from ps.shard.engine import Engine
from ps.shard.state import restore as restore_core
from ps.storage.ram.saving import Saved
from ps.storage.tier import Records

T = TypeVar("T")


class Sink(Protocol):
    """Takes what is saved, on a thread that may wait: one call at a time, in this order. What it is given are copies
    that nobody changes."""

    def take_state(self, version: int, state: KeptState) -> None:
        """Takes all but the rows, and the version that it is of."""

    def take_rows(self, table: str, records: Records, marks_N: npt.NDArray[np.uint16]) -> None:
        """Takes some rows of a table that were in RAM, all of one length, and the marks of each, see `Saving` in
        `ps.storage.ram.saving`."""

    def take_disk(self, folder: Path) -> None:
        """Takes the files of RocksDB, if the shard has a disk: they may be linked or copied, and never change. The
        folder is gone when this has returned."""


class Source(Protocol):
    """Gives what a sink has taken."""

    def state(self) -> KeptState:
        """Returns all but the rows."""

    def put_disk(self, folder: Path) -> bool:
        """Puts the files of RocksDB into an empty folder; returns whether there are any."""

    def rows(self, table: str) -> Iterable[tuple[Records, npt.NDArray[np.uint16]]]:
        """Returns the rows of a table that were in RAM and their marks, some at a time, in any order."""


def checkpoint(shard: Shard, sink: Sink, since: Since | None = None) -> int:
    """Gives the sink all that the shard keeps at one version, which it returns, while writes go on. Any thread, which
    waits. `since`: of tables that it names only rows in RAM with that stamp or a later one.

    Raises what the sink raises; ShardPoisoned, Unavailable where the shard is closed, TableNotFound where a table was
    dropped meanwhile, DiskError, DiskFull, and ResourceExhausted where another checkpoint is under way or there is no
    room. Then all is let go of, and the shard goes on.
    """
    return shard.engine.drive(taking(shard.core, sink, since or {}))


def kept(shard: Shard, version: int) -> None:
    """Tells the shard that its checkpoint of this version is complete and is kept: a later one may build on it. What
    was removed before it is not remembered any more."""

    def note() -> None:
        for table in shard.tables.values():
            table.ram.removed.kept(version)

    shard.engine.run(note)


def restore(shard: Shard, source: Source) -> int:
    """Makes a new shard, which has no table yet, the one that was saved; returns its version. It logs nothing. Raises
    as `ps.shard.state.restore` does, and the shard is new then."""

    def run() -> int:
        restore_core(shard.core, source.state(), source.put_disk, source.rows)
        return shard.version

    return shard.engine.run(run)


def taking(core: Core, sink: Sink, since: Since) -> Operation[int]:
    """Takes a checkpoint: what `checkpoint` has done by one thread, stretch by stretch."""
    yield ENGINE
    with core.saves.one():
        if core.disk is not None:
            yield from _aside(core.disk.flush)  # most of it; the cut flushes what has come since
        with closing(Cut(core, since)) as cut:
            yield from _aside(partial(sink.take_state, cut.version, cut.state))
            copied = _Copied(core.engine, cut)
            yield ENGINE
            while not cut.done:
                if parts := copied.rows():
                    yield from _aside(partial(_give, sink, parts))
                    cut.written(parts)
                else:
                    yield ENGINE
            cut.check()
            if cut.folder is not None:
                yield from _aside(partial(sink.take_disk, cut.folder))
                cut.check()
            return cut.version


def _aside(call: Callable[[], T]) -> Operation[T]:
    """Makes a call where it may wait, and comes back to the engine with its result or its error."""
    yield IO
    made = Attempt(call)
    yield ENGINE
    return made.result()


class _Copied:
    """The rows that the engine copies while others are written: no more than one slice ahead. The engine thread's."""

    def __init__(self, engine: Engine, cut: Cut) -> None:
        """Raises Unavailable where the engine is closed."""
        self._engine, self._cut = engine, cut
        self._next: Attempt[Sequence[Saved]] | None = None
        self._begin()

    def rows(self) -> Sequence[Saved]:
        """Returns what was copied, and has the next rows copied after this task. Raises as `Cut.next` does, and
        Unavailable. To be called in a task that was queued after the last call."""
        copied, self._next = self._next, None
        assert copied is not None, "the engine does its tasks in their order"
        parts = copied.result()
        self._begin()
        return parts

    def _begin(self) -> None:
        self._engine.put(self._copy)

    def _copy(self) -> None:
        self._next = Attempt(self._cut.next)


def _give(sink: Sink, parts: Sequence[Saved]) -> None:
    for part in parts:
        sink.take_rows(*part)
