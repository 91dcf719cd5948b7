"""What a shard does for itself after a write: rows go down to disk, dropped ones out of the way.

Begun on the engine thread, in slices; what waits for the disk is done by other threads. It changes where rows are and
nothing else, so it may fail, or be late, or not happen at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from ps.errors import PsError, Unavailable
from ps.runtime.places import DOWN, ENGINE, Operation
from ps.shard.engine import Engine
from ps.shard.steps.steps import Steps
from ps.shard.upkeep.disk_health import DiskHealth
from ps.storage.residence.demotion import Demotion
from ps.storage.residence.purge import Slice
from ps.table.table import Table

log = logging.getLogger(__name__)


class Maintenance:
    """One shard's."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        steps: Steps,
        engine: Engine,
        health: DiskHealth,
        clock: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._steps = steps
        self._engine = engine
        self._health = health
        self._clock = clock
        self._closing = False
        self._turn = 0

    def close(self) -> None:
        """Nothing is begun from now on. Any thread."""
        self._closing = True

    def run(self) -> None:
        """Begins what is due. What a disk refuses, or memory, is not told to the caller: it is tried again later."""
        self._steps.expire(self._clock())  # who waits for no other step would hold rows for good
        if any(table.has_disk for table in self._tables.values()):
            self._steps.look_again()
        tables = list(self._tables.values())
        for table in tables[self._turn :] + tables[: self._turn]:
            if table.cold.sweep():  # one a push: it is half a millisecond
                break
        self._turn = (self._turn + 1) % max(len(tables), 1)
        for table in tables:
            try:
                table.store.dropped.sweep()
                if not self._move_down(table) and self._disk_takes_rows():
                    self._begin(table, table.store.purge(), lambda: None)
            except (PsError, MemoryError) as error:
                self._refused(table, error)

    def _move_down(self, table: Table) -> bool:
        """One slice, and the next when it is done; whether there is any."""
        if not table.has_disk or not self._disk_takes_rows():
            return False
        return self._begin(table, table.maintain(), lambda: self._move_down(table))

    def _disk_takes_rows(self) -> bool:
        return not self._closing and self._health.takes_rows()

    def _begin(self, table: Table, work: Demotion | Slice | None, then: Callable[[], object]) -> bool:
        """Writes below on another thread; whether there is anything to write."""
        if work is None:
            return False

        self._engine.start(self._moved(table, work, then))
        return True

    def _moved(self, table: Table, work: Demotion | Slice, then: Callable[[], object]) -> Operation[None]:
        try:
            yield DOWN
            work.write()
            yield ENGINE
        except Unavailable as stopping:
            work.give_up(stopping)
        error = table.store.finish(work)
        if table.closed or self._closing:
            return
        if error is not None:
            self._refused(table, error)
            return
        if work.wrote:
            self._health.accepted()
        then()

    def _refused(self, table: Table, error: PsError | MemoryError) -> None:
        pause_s = self._health.refused(error)
        log.error("table %s, next try in %g s: rows cannot go down: %r", table.config.name, pause_s, error)
