"""The cut of a shard: what a checkpoint saves, as it was at one version, while the shard goes on.

At the cut all but the rows is copied, RocksDB's files are linked, and each table's marks are copied. From then on rows
in RAM are copied before they change (`ps.storage.ram.saving`), the others slice by slice. What was copied and is not
written yet is bounded: from a limit on writes are refused, with a hint to retry, as a log does that cannot keep up. All
that this takes comes out of the budget of messages under way, since it is given back as they are. The engine thread's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ps.kept import KeptState
from ps.shard.core import Core
from ps.shard.state import state_of
from ps.storage.ram.saving import Saved, Saving, Waiting, forget_changes

Since = Mapping[tuple[str, int], int]
"""By name of a table and the version at which it was created: the stamp from which on rows in RAM are saved."""
SLICE_BYTES = 1 << 18
"""Bytes of rows that the engine copies in one go while others use it: a tenth of a millisecond, for which they wait."""
LARGE_BYTES = 1 << 20
"""Bytes of rows that it copies in one go while nobody else uses it."""
CALM = 16
"""For so many slices in a row nobody else has used the engine when the large ones begin."""
OWN_TASKS = 2
"""The engine's tasks that one slice takes: to copy it, and to go on when the last one was written."""
SHARE = 8
"""A slice is one part in so many of what may wait, at most: the rest is for rows that are about to change."""
LOOKS = 4
"""How many blocks of slots the engine looks at in one go for rows to copy."""


class Cut:
    """One checkpoint under way. `close` it, come what may."""

    def __init__(self, core: Core, since: Since) -> None:
        """Raises ShardPoisoned, DiskError, DiskFull, and ResourceExhausted where there is no room for the copies."""
        core.commit.check_well()
        self._core = core
        self._large_bytes = min(LARGE_BYTES, core.saves.limit // SHARE)
        self._small_bytes = min(SLICE_BYTES, self._large_bytes)
        self._calm, self._tasks_done = 0, core.engine.tasks_done
        self.version = core.commit.version
        self.folder: Path | None = None
        """RocksDB's files, if the shard has a disk."""
        with ExitStack() as undo:
            undo.callback(self._end)
            for table in core.tables.values():
                table.store.finish_writing()
            state = {**state_of(core), **self._since(since)}
            held = _nbytes(state) + sum(2 * table.ram.slots_end for table in core.tables.values()) + core.saves.limit
            core.budget.bodies.hold(held)
            undo.callback(core.budget.bodies.give, held)
            self.state: KeptState = {name: _copied(value) for name, value in state.items()}
            """All but the rows: copies, which nobody changes."""
            self._waiting = core.saves.waiting = Waiting(core.saves.limit)
            self._tables = [
                Saving(name, table.ram, table.store.dropped.cuts, state[f"tables.{number}.since"], self._waiting)
                for number, (name, table) in enumerate(core.tables.items())
            ]
            for saving, table in zip(self._tables, core.tables.values(), strict=True):
                table.ram.saving = saving
                table.ram.removed.mark(self.version)
                forget_changes(table.ram)
            if core.disk is not None:
                undo.callback(core.disk.drop_copy)
                self.folder = core.disk.copy()
            self._undo = undo.pop_all()

    @property
    def done(self) -> bool:
        """Whether all rows were copied and are written."""
        return not self._waiting.nbytes and all(saving.done for saving in self._tables)

    def next(self) -> Sequence[Saved]:
        """Returns rows to be written: those that were copied before they changed, else those of the next slots, if any.
        Raises ShardPoisoned, TableNotFound where a table was dropped, and what else has kept rows from being copied."""
        self.check()
        nbytes = self._slice_bytes()
        for _ in range(LOOKS):
            left = next((saving for saving in self._tables if not saving.done), None)
            if left is None or self._waiting.untaken >= nbytes or self._waiting.full:
                break
            left.slice(nbytes - self._waiting.untaken)
        return self._waiting.take()

    def written(self, parts: Sequence[Saved]) -> None:
        """Notes that rows that `next` returned were written."""
        self._waiting.written(parts)

    def check(self) -> None:
        """Raises why the checkpoint cannot go on, if it cannot."""
        self._core.commit.check_well()
        for saving in self._tables:
            if saving.error is not None:
                raise saving.error

    def close(self) -> None:
        """Lets go of all that was held."""
        self._undo.close()

    def _slice_bytes(self) -> int:
        """Returns how much the next slice has: little from the moment that others use the engine, and for a while."""
        done = self._core.engine.tasks_done
        self._calm = self._calm + 1 if done - self._tasks_done <= OWN_TASKS else 0
        self._tasks_done = done
        return self._large_bytes if self._calm >= CALM else self._small_bytes

    def _end(self) -> None:
        self._core.saves.waiting = None
        for table in self._core.tables.values():
            table.ram.saving = None

    def _since(self, since: Since) -> KeptState:
        """Returns for each table the stamp from which on its rows are saved; None: all are. They all are where it is
        not known any more what was removed in between."""
        wanted = {
            number: since.get((name, table.born)) if table.ram.removed.since is not None else None
            for number, (name, table) in enumerate(self._core.tables.items())
        }
        return {f"tables.{number}.since": stamp for number, stamp in wanted.items()}


def _nbytes(state: KeptState) -> int:
    return sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))


def _copied(value: object) -> object:
    return value.copy() if isinstance(value, np.ndarray) else value
