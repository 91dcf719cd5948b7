"""The one place where writes are applied, in one order: known to the ledger? check, reserve, record, make, settle.

Up to the record a write may fail and has changed nothing. Called by the engine thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TypeVar, cast

from ps.arrays import Slots
from ps.errors import InternalError, TableNotFound
from ps.quoting import shown, some_of
from ps.shard.ledger import Ledger, WriteId
from ps.shard.requests import Gradients, PushResult, StepRef, TableIds, WriteResult
from ps.shard.staleness import Staleness
from ps.shard.steps.rise import Held, Rise
from ps.shard.steps.steps import Resolved, Steps
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.needs import of_push, of_write
from ps.shard.upkeep.pressure import Pressure
from ps.shard.writes.parts import Part
from ps.table.change import Change
from ps.table.table import Table

R = TypeVar("R", PushResult, WriteResult)

log = logging.getLogger(__name__)


class Commit:
    """Applies the writes of one shard."""

    def __init__(
        self,
        tables: Mapping[str, Table],
        ledger: Ledger[PushResult | WriteResult],
        steps: Steps,
        capacity: Capacity,
        pressure: Pressure,
        rise: Rise,
        aftermath: Aftermath,
        maintain: Callable[[Sequence[Table]], None],
        rounds_give_way: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._tables = tables
        self._ledger = ledger
        self._steps = steps
        self._capacity = capacity
        self._pressure = pressure
        self._rise = rise
        self._aftermath = aftermath
        self._maintain = maintain
        self._rounds_give_way = rounds_give_way
        self.version = 0
        """How many pushes were applied."""
        self.repeats = 0
        """How many writes were answered from the ledger."""
        self.staleness = Staleness()

    def known(self, write: WriteId) -> PushResult | WriteResult | None:
        """Returns the result of a write that was applied before, None for a new one. Raises as the ledger does."""
        found = self._ledger.answer(write)
        if found is not None:
            self.repeats += 1
        return found

    def once(self, write: WriteId, apply: Callable[[], R]) -> tuple[R, bool]:
        """Returns the result, and whether it came from the ledger; `apply` records it there."""
        found = self.known(write)
        if found is not None:
            return cast(R, found), True  # the digest tells writes of different kinds apart
        return apply(), False

    def push(
        self, tables: Sequence[Resolved], gradients: Sequence[Gradients], parts: Sequence[Part], worker: int
    ) -> list[PushResult]:
        """One push of the shard's history, of which these are the parts, all or nothing. Each part's result. `worker`:
        whose push it is, ROUNDS where it is that of a round."""

        def let_go() -> None:
            for part in parts:
                part.ahead.let_go()

        needs = of_push(tables, gradients)
        with self._rounds_give_way(), self._pressure.relieved(needs, let_go):
            for part in parts:
                part.ahead.check()
            self._rise.now(tables)
            self._capacity.make_room(self._tables, needs)
            with _rows_created(tables, gradients):
                changes = [
                    (resolved.table, _planned(resolved, given, worker))
                    for resolved, given in zip(tables, gradients, strict=True)
                ]
                version = self.version + 1
                results = [PushResult(version, self.staleness.of(version, part.pulled_version)) for part in parts]
                writes = [(part.write, result) for part, result in zip(parts, results, strict=True)]
                self._ledger.record_all(writes, _nbytes)  # the last step that can fail
        self.version = version
        self._make([part.write for part in parts], changes)
        for part in parts:
            self.staleness.observe(version, part.pulled_version)
        self._aftermath.run("letting go of rows", let_go)
        for part in parts:
            if isinstance(part.ahead.target, StepRef):
                self._aftermath.run("ending a step", partial(self._steps.finish, part.ahead.target))
        self._settle(changes)
        self._aftermath.run("maintenance", partial(self._maintain, [table for table, _ in changes]))
        return results

    def write(
        self,
        write: WriteId,
        ids: TableIds,
        rows: Held,
        check: Callable[[Table], None],
        plan: Callable[[Table], Change],
        creates: bool,
    ) -> WriteResult:
        """Applies an explicit write to rows that are held in RAM, where they exist."""
        needs = of_write(rows.tables[0].table, ids, creates)
        with self._rounds_give_way(), self._pressure.relieved(needs, rows.let_go):
            table = self._table(ids.table)
            check(table)
            self._rise.now([Resolved(table, ids)])
            self._capacity.make_room(self._tables, needs)
            change = plan(table)
            result = self._recorded(write, change)
        self._make([write], [(table, change)])
        self._settle([(table, change)])
        return result

    def _table(self, name: str) -> Table:
        return table_of(self._tables, name)

    def _recorded(self, write: WriteId, change: Change) -> WriteResult:
        """The result of an explicit write, which the ledger knows from here on; after an error there is none."""
        try:
            result = WriteResult.of(self.version, change.existed_N)
            self._ledger.record_all([(write, result)], _nbytes)
        except BaseException:
            change.undo()
            raise
        return result

    def _make(self, writes: Sequence[WriteId], changes: Sequence[tuple[Table, Change]]) -> None:
        """Makes changes whose writes are in the ledger. Raises InternalError where one is torn: the ledger then says so
        to every repeat, and the shard goes on."""
        made: list[str] = []
        try:
            for table, change in changes:
                change.make()
                made.append(table.config.name)
        except Exception as error:
            torn = changes[len(made)][0].config.name
            why = (
                f"a write of {len(changes)} tables failed in the middle of table {torn!r} ({type(error).__name__}: "
                f"{error}): tables {made} have all of it, {torn!r} perhaps a part, the others nothing. It is not "
                "applied again; restore these rows or go on without"
            )
            log.exception("torn: %s", why)
            for write in writes:
                self._ledger.tear(write, why)
            raise InternalError(why) from error

    def _settle(self, changes: Sequence[tuple[Table, Change]]) -> None:
        """What the tables, and the shard, decide after a write."""
        for table, change in changes:
            for name, part in change.settle.items():
                self._aftermath.run(f"table {table.config.name!r}: {name}", part)
        written = [table for table, _ in changes]
        self._aftermath.run("eviction of all tables", lambda: self._capacity.evict(self._tables, written))


def table_of(tables: Mapping[str, Table], name: str) -> Table:
    """Returns the table of that name; raises TableNotFound."""
    try:
        return tables[name]
    except KeyError:
        raise TableNotFound(f"no table {shown(name)} (there are: {some_of(tables)}); create_table makes one") from None


@contextmanager
def _rows_created(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> Iterator[None]:
    """Creates a row for each id that has a gradient and may have a row. After an error none of them is left."""
    created: list[tuple[Resolved, Slots]] = []
    try:
        for resolved, part in zip(tables, gradients, strict=True):
            created.append((resolved, resolved.create_admitted(part.rows_R)))
        yield
    except BaseException:
        for resolved, positions_N in created:
            resolved.table.reserve.undo_create(resolved.slots(), positions_N)
        raise


def _planned(resolved: Resolved, given: Gradients, worker: int) -> Change:
    table, ids = resolved.table, resolved.ids
    slots_N, blocks, positives_N = resolved.slots(), given.blocks, given.positives_N
    return table.writes.plan_push(
        ids.ids_N, slots_N, ids.counts_N, blocks, positives_N, given.rows_R, worker, given.pushes
    )


def _nbytes(result: PushResult | WriteResult) -> int:
    return result.nbytes
