"""Maintenance after a write: moves rows to disk, and frees the slots of dropped rows.

It begins on the engine thread, in slices; other threads wait for the disk. It changes only where rows are, so it may
fail, or be late, or not happen at all.

A write's maintenance is about the tables that it wrote to. The other tables change a little too, because what one table
wants more is taken from the shares of all. So a few of them are looked at in turn, and all of them if a request finds
no room.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from ps.errors import PsError, Unavailable
from ps.runtime.places import DOWN, ENGINE, Operation
from ps.shard.engine import Engine
from ps.shard.steps.steps import Steps
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.disk_health import DiskHealth
from ps.storage.residence.demotion import Demotion
from ps.storage.residence.purge import Slice
from ps.table.table import Table

log = logging.getLogger(__name__)

IN_TURN = 8
"""How many tables are looked at with each write, whether it names them or not."""


class Maintenance:
    """The maintenance of one shard."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        steps: Steps,
        engine: Engine,
        health: DiskHealth,
        aftermath: Aftermath,
        clock: Callable[[], float],
    ) -> None:
        self._tables = tables
        self._aftermath = aftermath
        self._steps = steps
        self._engine = engine
        self._health = health
        self._clock = clock
        self._closing = False
        self._turns: OrderedDict[Table, None] = OrderedDict()  # tables that were written to, the next in turn first

    def close(self) -> None:
        """Stops beginning work from now on. Any thread."""
        self._closing = True

    def run(self, written: Sequence[Table]) -> None:
        """Begins the work that is due after a write to these tables. If the disk or memory refuses it, the caller gets
        no error, and it is retried later."""
        self._steps.expire(self._clock())  # a step that nobody uses would hold its rows for good
        for table in written:
            self._turns.setdefault(table)
        in_turn = list(islice(self._turns, IN_TURN))
        looked_at = dict.fromkeys([*in_turn, *written])
        served = self._sweep(looked_at)
        for table in in_turn[: in_turn.index(served) + 1] if served in in_turn else in_turn:
            self._turns.move_to_end(table)
        for table in looked_at:
            if table.closed:
                self._turns.pop(table, None)
            else:
                self._maintain(table)

    def run_all(self) -> None:
        """Begins the work that is due for any table, because a request waits for room."""
        self._steps.expire(self._clock())
        for table in list(self._tables.values()):
            self._maintain(table)

    def _sweep(self, tables: Iterable[Table]) -> Table | None:
        """Lets one of the tables sweep, which takes half a millisecond; returns it."""
        return next((table for table in tables if not table.closed and table.cold.sweep()), None)

    def _maintain(self, table: Table) -> None:
        try:
            table.store.dropped.sweep()
            if not self._move_down(table) and self._disk_takes_rows():
                self._begin(table, table.store.purge(), lambda: None)
        except (PsError, MemoryError) as error:
            self._refused(table, error)

    def _move_down(self, table: Table) -> bool:
        """Begins to move a slice of rows to disk, and the next one after it. Returns whether there is any."""
        if not table.has_disk or not self._disk_takes_rows():
            return False
        return self._begin(table, table.maintain(), lambda: self._move_down(table))

    def _disk_takes_rows(self) -> bool:
        return not self._closing and self._health.takes_rows()

    def _begin(self, table: Table, work: Demotion | Slice | None, then: Callable[[], object]) -> bool:
        """Lets another thread write to disk. Returns whether there is anything to write."""
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
        self._aftermath.run("maintenance", lambda: self._ended(table, work, then))

    def _ended(self, table: Table, work: Demotion | Slice, then: Callable[[], object]) -> None:
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
