"""Carries out all writes of a shard, in one order:

    known to the ledger? -> check -> reserve -> log -> apply -> record -> let go, settle, evict, maintain
    `------------ may fail: nothing has changed ------------'  `- poisons -'  `- may fail: the write stands -'

Rows that are evicted, before a write for which there is no room or after one that was too much, go by a write of their
own, which takes the same way. Called by the engine thread only. What fails between log and record leaves rows that may
have a part of the write: the shard is poisoned, takes no writes and gives out no rows until it is restarted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from ps.errors import InternalError, ShardPoisoned
from ps.kept import KeptState
from ps.shard.ledger import Entry, Ledger, WriteId
from ps.shard.requests import PushResult, StepRef
from ps.shard.steps.rise import Rise
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.evictions import Evictions
from ps.shard.upkeep.needs import Need
from ps.shard.upkeep.pressure import Pressure
from ps.shard.upkeep.saves import Saves
from ps.shard.writes.log import Log
from ps.shard.writes.write import Ground, Planned, Result, Write
from ps.table.table import Table

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A write whose rows in RAM are held there."""

    write: Write
    tables: Sequence[Resolved] = ()
    check: Callable[[], object] = lambda: None
    """Raises ResourceExhausted if there was no room for the rows."""
    let_go: Callable[[], None] = lambda: None
    """Releases the rows, so that they may move again. May be called again."""
    steps: Sequence[StepRef] = field(default=())
    """The prepared steps that the write ends."""
    replayed: bool = False
    """Whether the log has it, and has what was evicted for it too."""


class Commit:
    """Carries out the writes of one shard."""

    def __init__(
        self,
        ground: Ground,
        ledger: Ledger[Result],
        history: Log,
        capacity: Capacity,
        pressure: Pressure,
        rise: Rise,
        aftermath: Aftermath,
        saves: Saves,
        maintain: Callable[[Sequence[Table]], None],
        rounds_give_way: Callable[[], AbstractContextManager[None]],
        end_rounds: Callable[[str], None],
    ) -> None:
        """end_rounds: tells waiting parts of rounds why no other part will come."""
        self._ground = ground
        self._ledger = ledger
        self.log = history
        """Where writes are logged. Another may take its place between two writes."""
        self._capacity = capacity
        self._evictions = Evictions(ground.tables, capacity, self._carry_out_own)
        self._pressure = pressure
        self._rise = rise
        self._aftermath = aftermath
        self._saves = saves
        self._maintain = maintain
        self._rounds_give_way = rounds_give_way
        self._end_rounds = end_rounds
        self._under_way: Write | None = None
        """The write between its reservation and its record. After a failure there it stays here."""
        self.poisoned: str | None = None
        """Why the shard is poisoned; None while it is not. Any thread may read it."""
        self.when_poisoned: Callable[[], object] = lambda: None
        """A function that the engine thread calls once when the shard becomes poisoned."""
        self.version = 0
        """How many writes were carried out."""
        self.pushes = 0
        """How many of the writes were pushes."""
        self.repeats = 0
        """How many writes were answered from the ledger."""

    def check_well(self) -> None:
        """Raises ShardPoisoned if the shard is poisoned. Called on the engine thread, between two writes."""
        if self._under_way is not None:
            raise ShardPoisoned(self._poison(self._under_way, "nobody knows where"))

    def state(self) -> KeptState:
        """See `ps.kept`. The shard is well, and between two writes."""
        return {"version": self.version, "pushes": self.pushes, "repeats": self.repeats}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self.version, self.pushes, self.repeats = state["version"], state["pushes"], state["repeats"]

    def known(self, entries: Sequence[WriteId]) -> Sequence[Result] | None:
        """Returns the results of a write that was carried out before, None for a new one. Raises ShardPoisoned, and the
        errors of the ledger."""
        self.check_well()
        found = [self._ledger.answer(entry) for entry in entries]
        results = [_again(result) for result in found if result is not None]
        if not results:
            return None
        if len(results) < len(entries):
            raise InternalError(f"of {len(entries)} pushes that make one, {len(results)} were applied before")
        self.repeats += 1
        return results

    def carry_out(self, entries: Sequence[WriteId], prepare: Callable[[], Ready]) -> Sequence[Result]:
        """Carries out a write, all of it or nothing, and returns the result of each entry. One that was carried out
        before is answered from the ledger, and `prepare` is not called."""
        known = self.known(entries)
        if known is not None:
            return known
        self.log.check()
        self._saves.check()
        ready = prepare()
        planned, reserved = self._reserve(ready)
        self._commit(ready.write, planned, reserved)
        self._follow(ready, planned)
        return planned.results

    def _reserve(self, ready: Ready) -> tuple[Planned, Sequence[Entry[Result]]]:
        """Does everything that may refuse the write. After it the write is under way, and cannot be taken back."""
        write, tables = ready.write, ready.tables
        write.check(tables)
        needs = write.needs(tables)
        with self._relieved(needs, ready), self._undoing(write) as undo:
            ready.check()
            self._rise.now(tables)
            if not ready.replayed:
                self._evictions.before(needs)
            planned = write.plan(self._ground, tables, self.version + 1, undo)
            answers = [(entry, r, r.nbytes) for entry, r in zip(write.entries, planned.results, strict=True)]
            undo.callback(self._ledger.withdraw, write.entries)  # before: nothing may fail between the two
            reserved = self._ledger.reserve(answers)
            self._under_way = write
        return planned, reserved

    @contextmanager
    def _relieved(self, needs: Sequence[Need], ready: Ready) -> Iterator[None]:
        """Makes other tables give room if a write of rows finds none."""
        if not needs:
            yield
            return
        with self._rounds_give_way(), self._pressure.relieved(needs, ready.let_go):
            yield

    @contextmanager
    def _undoing(self, write: Write) -> Iterator[ExitStack]:
        """Undoes what was reserved if the write is refused. If that fails too, the shard is poisoned."""
        undo = ExitStack()
        try:
            yield undo
        except BaseException:
            if self._under_way is None:
                self._under_way = write
                undo.close()
                self._under_way = None
            raise

    def _commit(self, write: Write, planned: Planned, reserved: Sequence[Entry[Result]]) -> None:
        """Logs, applies and records the write that is under way. It stays under way if one of these fails."""
        made: list[str] = []
        try:
            self.log.append(self.version + 1, write)
            for name, make in planned.make:
                make()
                made.append(name)
            self._ledger.record(reserved)
            self._count(write, planned)
        except BaseException as error:
            raise ShardPoisoned(self._poison(write, _where(planned, made, error))) from error
        self._under_way = None

    def _poison(self, write: Write, where: str) -> str:
        """Poisons the shard, tells all who wait, and returns the error."""
        if self.poisoned is None:
            self.poisoned = (
                f"a write ({type(write).__name__}) failed {where}: rows may have a part of it, and it was not "
                "acknowledged. This shard takes no writes and gives out no rows any more: stop the trainers, restart "
                "the service "
            ) + ("and load the last export" if self.log.stats() is None else "and its log brings back the rows")
            log.critical("the shard is poisoned: %s", self.poisoned, exc_info=True)
            self._end_rounds(self.poisoned)
            self.when_poisoned()
        return self.poisoned

    def _count(self, write: Write, planned: Planned) -> None:
        self.version += 1
        self.pushes += write.PUSHES
        staleness = self._ground.staleness
        if not write.PUSHES:
            staleness.other(self.version)
        for stale in planned.staleness:
            staleness.observe(stale)

    def _follow(self, ready: Ready, planned: Planned) -> None:
        """Does the work that follows a write that stands, even if a part of it fails."""
        run = self._aftermath.run
        run("letting go of rows", ready.let_go)
        if planned.gone:
            self._aftermath.forget(planned.gone)
        for step in ready.steps:
            run("ending a step", partial(self._ground.steps.finish, step))
        for name, part in planned.settle:
            run(name, part)
        if planned.written:
            limit = self._capacity.count if ready.replayed else self._evictions.after
            run("eviction", partial(limit, planned.written))
            run("maintenance", lambda: self._maintain(planned.written))

    def _carry_out_own(self, write: Write) -> Sequence[Table]:
        """Carries out a write of the shard's own, for which nothing has to rise or to make way. Returns the tables that
        it is about. It belongs to another write, which the log has not refused: the log is not asked again."""
        with self._undoing(write) as undo:
            planned = write.plan(self._ground, (), self.version + 1, undo)
            self._under_way = write
        self._commit(write, planned, ())
        for name, part in planned.settle:
            self._aftermath.run(name, part)
        return planned.written


def _again(result: Result) -> Result:
    return replace(result, repeated=True) if isinstance(result, PushResult) else result


def _where(planned: Planned, made: Sequence[str], error: BaseException) -> str:
    """Returns in words where a write stopped."""
    names = [name for name, _ in planned.make]
    left = names[len(made) :]
    where = f"in the middle of {left[0]}" if left else "before it was recorded"
    return f"{where} ({type(error).__name__}: {error}); {made} have all of it, {left[1:]} nothing"
