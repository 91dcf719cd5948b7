"""The shard: tables, engine, ledger, steps and version, and the operations on them.

Threads: any thread may call any method; the work itself runs on the engine thread. A write either raises and has
changed nothing, or is applied whole and is in the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from ps.config import ServiceConfig, TableConfig
from ps.errors import (
    CorruptRow,
    ResourceExhausted,
    Unavailable,
)
from ps.policy.ranking import EVERY_RANK
from ps.round import Round
from ps.shard.assistant import Assistant
from ps.shard.caller import PATIENT, Caller
from ps.shard.commit import Commit, Ready
from ps.shard.engine import Engine
from ps.shard.ledger import Ledger, WriteId
from ps.shard.reads.pooled import pull_bytes, spread
from ps.shard.reads.stream import Allocate, RowStream, plain
from ps.shard.requests import Gradients, Page, PushResult, StepRef, TableIds, Target, Wanted, WriteResult
from ps.shard.staleness import Staleness
from ps.shard.steps.late import Late
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.steps.rising import Rising
from ps.shard.steps.steps import Resolved, Steps
from ps.shard.tables import Builder, Tables, letting_go
from ps.shard.upkeep.account import Account
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.building import Building
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.disk_health import DiskHealth
from ps.shard.upkeep.maintenance import Maintenance
from ps.shard.upkeep.pressure import Pressure
from ps.shard.writes.arrivals import Arrivals
from ps.shard.writes.assign import Assign
from ps.shard.writes.checks import check_gradients, check_tables, check_unique
from ps.shard.writes.forget import Forget
from ps.shard.writes.log import Log, NoLog
from ps.shard.writes.parts import Part, Waiting, round_bytes
from ps.shard.writes.push import Push
from ps.shard.writes.remove import Remove
from ps.shard.writes.report import Report
from ps.shard.writes.rounds import Rounds
from ps.shard.writes.upsert import Upsert
from ps.shard.writes.whole_round import WholeRound
from ps.shard.writes.write import Ground, Result, RowsWrite, Write, table_of
from ps.storage.budget.budget import RamBudget, fitted
from ps.storage.disk.database import Disk
from ps.table.table import Table

log = logging.getLogger(__name__)

ROWS_ONLY = Wanted()

IO_THREADS = 4
"""They read the disk for those that wait; RocksDB's own work is on threads of its own."""
DOWN_THREADS = 2
"""They write rows below, for which nobody waits: a read does not queue behind them."""
LOOK_S = 0.5
"""For an engine that is in the middle of something: few tasks take a tenth of it."""


class Shard:
    """All tables' rows of the partitions that one process owns."""

    def __init__(
        self,
        shard_id: int,
        config: ServiceConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        history: Log | None = None,
    ) -> None:
        """`history`: where its writes are logged before they are applied; None: nowhere."""
        self.budget = RamBudget(config or ServiceConfig())
        config = fitted(config or ServiceConfig())
        self._disk = _open_disk(config, shard_id, self.budget)  # before there are threads: it can fail
        self._disk_health = DiskHealth(clock)
        self.shard_id = shard_id
        self.tables: dict[str, Table] = {}
        self.engine = Engine(str(shard_id), max_queue=config.max_requests)
        self._building = Building(self.engine)
        self._assistant = Assistant(str(shard_id))
        self._io = ThreadPoolExecutor(IO_THREADS, thread_name_prefix=f"io-{shard_id}")
        self._down = ThreadPoolExecutor(DOWN_THREADS, thread_name_prefix=f"down-{shard_id}")
        self._clock = clock
        self._max_body_bytes = config.max_body_bytes
        self._capacity = Capacity(config, self.budget)
        self._ledger: Ledger[Result] = Ledger(config.ledger_window, config.max_ledger_bytes)
        self._steps = Steps(config.prepare_ttl_s, config.max_steps, config.max_steps_bytes)
        self._maintenance = Maintenance(self.tables, self._steps, self.engine, self._down, self._disk_health, clock)
        self._aftermath = Aftermath()
        maintain = partial(self._aftermath.run, "maintenance", self._maintenance.run)
        self._pressure = Pressure(self.budget, self._steps, maintain, clock)
        self._account = Account()
        room = None if config.ram_bytes is None else self.budget.aside.bodies
        self._rounds = Rounds(_most_waiting(config), room, clock)
        self._late = Late(self._disk_health)
        self.staleness = Staleness()
        builder = Builder(self._assistant, self._disk, self._capacity, self._pressure, self.budget)
        self._commit = Commit(
            Ground(self.tables, self._steps, self.staleness, builder.build, builder.discard),
            self._ledger,
            history or NoLog(),
            self._capacity,
            self._pressure,
            self._late,
            self._aftermath,
            self._maintenance.run,
            self.rounds_give_way,
        )
        self._tables = Tables(self.tables, builder, self._building, self.engine, self._commit)
        self.arrivals = Arrivals(self.budget.bodies, clock)
        self._seen: tuple[dict[str, object], float] = ({}, clock())
        self._look()

    @property
    def version(self) -> int:
        """How many writes this shard has carried out."""
        return self._commit.version

    @property
    def pushes(self) -> int:
        """How many of its writes were pushes."""
        return self._commit.pushes

    @property
    def poisoned(self) -> str | None:
        """Why it takes no writes and gives out no rows any more; None while it is well. Any thread."""
        return self._commit.poisoned

    def when_poisoned(self, then: Callable[[], object]) -> None:
        """Has it called where a write fails between log and record."""
        self._commit.when_poisoned = then

    @property
    def repeats(self) -> int:
        """How many writes were answered from the ledger."""
        return self._commit.repeats

    @property
    def rows_late(self) -> int:
        """How many rows were read from disk while a pull or a push waited: their prepare was lost, late or not sent."""
        return self._late.rows

    # tables

    def create_table(self, config: TableConfig, exist_ok: bool = False) -> bool:
        """True if created, False if it was there with the same configuration; raises TableExists otherwise."""
        return self._tables.create(config, exist_ok)

    def drop_table(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a table with all its rows; True if there was one."""
        return self._tables.drop(name, missing_ok)

    # the step protocol

    def prepare(self, ref: StepRef, ids: Sequence[TableIds], caller: Caller = PATIENT) -> int:
        """Resolves the ids of a step ahead of its pull, and brings their rows into RAM. Ids unique in each table.

        Returns the version. Raises ResourceExhausted when prepared steps hold all that they may.
        """
        check_unique(ids)
        rising = self._begin(ids, caller, self._pressure.check_steps)
        if rising.waits:
            self._read(rising)

        def add() -> int:
            if caller.gone:  # nobody would push the step
                rising.abandon()
                caller.check()
            with self._pressure.hinted(rising.tables, rising.let_go):
                raised = rising.finish()
            for table, rows in raised:
                table.rows_on_time += rows
            self._steps.add(ref, rising.tables, self._clock())
            return self.version

        return self.engine.post(add).result()  # accepted before: refused now, its rows would stay held

    def forget(self, ref: StepRef) -> None:
        """No push of this step will follow: what it holds may move again. It need not be held."""
        self.engine.run(lambda: self._steps.finish(ref))

    def pull(
        self,
        target: Target,
        wanted: Wanted = ROWS_ONLY,
        allocate: Allocate = plain,
        caller: Caller = PATIENT,
        held: int = 0,
    ) -> RowStream:
        """Rows in the order of the ids; changes nothing. Errors are raised by the stream's `head()`.

        `allocate` gives the memory of each chunk; `held`: bytes of the budget that the caller holds for this pull.
        """
        if not isinstance(target, StepRef):
            check_tables(target)
        stream = RowStream(allocate, self.budget.bodies, caller)

        def begin() -> None:
            with stream.failing():
                caller.check()
                tables = self._resolve(target)
                stream.hold(max(self._body_bytes(tables) - held, 0))
                if isinstance(target, StepRef):
                    for resolved in tables:
                        resolved.slots()
                rising = Rising(tables, caller)
                if self._disk is not None:
                    rising.begin()
                if rising.waits:
                    try:
                        self._read_later(lambda: read(rising))
                    except BaseException:
                        rising.abandon()
                        raise
                else:
                    fill(rising)

        def read(rising: Rising) -> None:
            with stream.failing():
                self._read(rising)
                self.engine.post(lambda: fill(rising))

        def fill(rising: Rising) -> None:
            with stream.failing():
                try:
                    caller.check()
                    with self._disk_health.reading():
                        self._late.count(rising.beside())
                    self._commit.check_well()
                    stream.fill(self.version, rising.tables, wanted)
                finally:
                    rising.let_go()

        self.engine.submit(begin)
        return stream

    def look_ahead(self, target: Target, caller: Caller = PATIENT) -> LookAhead:
        """Has a push's rows brought up while its gradients are still arriving. For a `with` statement."""
        ahead = LookAhead(target, self.engine, self._io, caller)
        self.engine.submit(lambda: ahead.begin(lambda: self._resolve(target)))
        if not isinstance(target, StepRef):
            try:
                check_unique(target)  # beside the engine's work, not before it
            except BaseException:
                ahead.close()
                raise
        return ahead

    def push(
        self,
        write: WriteId,
        ahead: LookAhead,
        gradients: Sequence[Gradients],
        pulled_version: int = 0,
        caller: Caller = PATIENT,
        ids_digest: int = 0,
    ) -> PushResult:
        """Applies finite gradients, all or nothing, once per (worker_id, sequence). Ids unique in each table."""
        ahead.wait()
        push = self._push_of(write, ahead, gradients, pulled_version, ids_digest)

        def ready() -> Ready:
            tables = self._tables_of(ahead)
            push.of = [resolved.ids for resolved in tables]
            steps = [ahead.target] if isinstance(ahead.target, StepRef) else []
            return Ready(push, tables, ahead.check, ahead.let_go, steps)

        (result,) = self.engine.run(lambda: self._commit.carry_out([write], ready), caller)
        return cast(PushResult, result)

    def _push_of(
        self,
        write: WriteId,
        ahead: LookAhead,
        sent: Sequence[Gradients],
        pulled_version: int,
        ids_digest: int,
        place: Round | None = None,
    ) -> Push:
        gradients = spread(ahead.ids, sent)  # on the caller's time
        return Push(write, (), sent, pulled_version, ids_digest, place, gradients)

    def join_round(
        self,
        place: Round,
        wait_s: float,
        write: WriteId,
        ahead: LookAhead,
        gradients: Sequence[Gradients],
        pulled_version: int = 0,
        caller: Caller = PATIENT,
        held: int = 0,
        ids_digest: int = 0,
    ) -> Waiting:
        """Pushes together with the round's other ranks, whose pushes are summed and make one version. The
        outcome of what is returned comes when the last of them has joined: a PushResult, or the error of all.

        It may wait for `wait_s`, and for as long as its caller does: who knows that these have ended calls `expire` or
        `leave_round`. Then nothing of this push was applied, and it may be sent again. `held`: bytes of the budget that
        its call holds.
        """
        self._rounds.check(place)
        ahead.wait()
        part = Part(self._push_of(write, ahead, gradients, pulled_version, ids_digest, place), ahead)
        return self.engine.run(lambda: self._join(place, wait_s, part, held), caller)

    def leave_round(self, waiting: Waiting) -> None:
        """Nobody waits for it any more: if it still waits for others, nothing of it is applied. Returns at once."""
        with suppress(Unavailable):  # a shard that is closed has ended them all
            self.engine.post(lambda: self._rounds.leave(waiting))

    def expire(self, waiting: Waiting) -> None:
        """The part's time is over: it leaves, and is told which ranks are missing. Returns at once."""
        with suppress(Unavailable):
            self.engine.post(lambda: self._rounds.expire(waiting))

    @contextmanager
    def rounds_give_way(self, group: str = "") -> Iterator[None]:
        """Around what a message takes, of a part of that group's round or of none: where it finds no room and is asked
        to come again, it is not to find the same that waits."""
        try:
            yield
        except ResourceExhausted as error:
            if error.retry_after_s is not None:
                self.engine.post(lambda: self._rounds.give_way(group))
            raise

    def end_rounds(self) -> None:
        """Whoever waits for other ranks hears that the shard is stopping, when the engine comes to it."""
        self.engine.post(self._rounds.close)

    # explicit writes

    def upsert(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets values, creating rows. Ids unique, values finite."""
        return self._write(Upsert(write, ids, blocks), caller)

    def assign(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets the values of rows that exist. Ids unique, values finite."""
        return self._write(Assign(write, ids, blocks), caller)

    def remove(
        self,
        write: WriteId,
        ids: TableIds,
        statistics_N2: npt.NDArray[np.uint32] | None = None,
        caller: Caller = PATIENT,
    ) -> WriteResult:
        """Drops rows, also those that cannot be read any more. Ids unique. With statistics, as exported: only rows that
        still have them, which are those that nobody has pushed since."""
        lost_M = np.empty(0, np.int64)
        while True:
            try:
                return self._write(Remove(write, ids, statistics_N2, lost_M), caller)
            except CorruptRow as error:  # those rows cannot be brought up to be removed
                lost_M = np.union1d(lost_M, self._forget(ids.table, np.array(error.ids, np.int64)))

    def report_importance(
        self, write: WriteId, ids: TableIds, scores_N: npt.NDArray[np.float32], caller: Caller = PATIENT
    ) -> WriteResult:
        """Adds to the importance of rows that exist, which counts as a use of them. Ids unique."""
        return self._write(Report(write, ids, scores_N), caller)

    def replay(self, write: Write) -> Sequence[Result]:
        """Carries out a write as its log has it. Returns the result of each entry."""
        check_unique(write.ids)

        def meet() -> Rising:
            write.meet(self.tables)
            rising = Rising(self._resolve(write.ids))
            rising.begin()
            return rising

        return self._carry_out(write, self.engine.run(meet), PATIENT)

    # reading

    def export_page(
        self,
        name: str,
        cursor: int,
        n: int,
        least: int = 0,
        highest_rank: int = EVERY_RANK,
        caller: Caller = PATIENT,
    ) -> Page:
        """Up to n rows. A row that lives through all pages is in just one.

        With `least` on the first page, and what that says in `highest_rank` on the others, there are so many of the
        least important rows, or some more.
        """

        def run() -> Page:
            table = self._table(name)
            highest = table.rank_of_least(least) if least and not cursor else highest_rank
            with self._disk_health.reading():
                records, next_cursor = table.page(cursor, n, highest)
            values_ND, scores_N = table.values(records), table.scores(records)
            return Page(records.ids_N, values_ND, scores_N, records.statistics_N2, next_cursor, highest)

        return self.engine.run(run, caller)

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters, all of one moment. `degraded` says what is wrong, if anything is.

        They do not queue. Where the engine is busy with one task for longer than LOOK_S they are those of the last
        time that somebody looked, `age_s` ago.
        """
        disk_bytes = self._disk.bytes_on_disk() if self._disk is not None else None  # not on the engine thread's time
        asked = self.engine.look(self._look)
        try:
            asked.result(LOOK_S)
        except TimeoutError:
            asked.cancel()
            seen, at = self._seen
            return {**seen, "disk_bytes": disk_bytes, "age_s": max(self._clock() - at, 0.0)}
        return {**self._seen[0], "disk_bytes": disk_bytes, "age_s": 0.0}

    def memory_usage(self) -> dict[str, int]:
        """Bytes outside the tables, by purpose; with those of the tables, all that the process has taken since its
        start."""
        disk = self._disk.memory_usage() if self._disk is not None else {}
        known = {"steps": self._steps.nbytes, "bodies": self.budget.bodies.used, **disk}
        of_tables = sum(table.heap_bytes for table in self.tables.values())
        return self._account.explain(self._ledger.nbytes, known, of_tables)

    def started(self) -> None:
        """From here on its memory is counted: what came before is the process."""
        self._account = Account()

    def close(self) -> None:
        """Finishes queued work, ends the engine and gives the tables' memory back."""
        with suppress(Unavailable):  # closed before
            self.end_rounds()
        self._maintenance.close()
        self._io.shutdown()
        self._down.shutdown()
        self.engine.close()
        self._assistant.close()
        for name, table in self.tables.items():
            with letting_go(f"of table {name}"):
                table.close()
        self.tables.clear()
        if self._disk is not None:
            with letting_go("of the shard"):
                self._disk.close()

    # on the engine thread

    def _look(self) -> None:
        stats: dict[str, object] = {
            "shard_id": self.shard_id,
            "version": self.version,
            "pushes": self.pushes,
            "repeated_pushes": self.repeats,
            "steps_prepared": self._steps.prepared,
            "steps_expired": self._steps.expired,
            "steps_held": len(self._steps),
            "rounds_waiting": self._rounds.waiting,
            "staleness": self.staleness.report(),
            "rows_late": self.rows_late,
            "disk_errors": dict(self._disk_health.errors),
            "failures_after_writes": self._aftermath.failures,
            "degraded": self._disk_health.degraded or self._aftermath.degraded,
            "poisoned": self.poisoned,
            "tables": {name: table.stats() for name, table in self.tables.items()},
            "bytes": self.memory_usage(),
        }
        self._seen = stats, self._clock()

    def _table(self, name: str) -> Table:
        self._commit.check_well()
        return table_of(self.tables, name)

    def _resolve(self, target: Target) -> list[Resolved]:
        self._commit.check_well()
        if isinstance(target, StepRef):
            return self._steps.get(target, self._clock())
        tables = [Resolved(self._table(part.table), part) for part in target]
        for resolved in tables:
            resolved.table.check_ids(resolved.ids.ids_N)
        return tables

    def _tables_of(self, ahead: LookAhead) -> list[Resolved]:
        return ahead.tables(self.tables) or self._resolve(ahead.target)

    def _join(self, place: Round, wait_s: float, part: Part, held: int) -> Waiting:
        """It has the result of a push that was applied before; else it waits, or completes its round."""
        push = part.push
        known = self._commit.known([push.entry])
        if known is not None:
            return Waiting.ended(place, part, cast(PushResult, known[0]))
        tables = self._tables_of(part.ahead)
        check_gradients(tables, push.gradients)
        push.of = [resolved.ids for resolved in tables]
        nbytes = max(round_bytes(tables, push.gradients), held)
        waiting = Waiting(place, part, wait_s, nbytes)
        complete = self._rounds.join(waiting)
        if complete:
            self._apply_round(complete)
        return waiting

    def _apply_round(self, waiting: Sequence[Waiting]) -> None:
        """Those of all ranks, by rank: each gets its result, or all of them the error."""
        aheads = [each.part.ahead for each in waiting]
        write = WholeRound([each.part.push for each in waiting])

        def ready() -> Ready:
            write.meet(self.tables)
            steps = [ahead.target for ahead in aheads if isinstance(ahead.target, StepRef)]
            check, let_go = (partial(_each, aheads, what) for what in ("check", "let_go"))
            return Ready(write, self._resolve(write.ids), check, let_go, steps)

        try:
            results = self._commit.carry_out(write.entries, ready)
        except BaseException as error:  # noqa: BLE001  handed to those who wait
            for each in waiting:
                each.outcome.set_exception(error)
            return
        for each, result in zip(waiting, results, strict=True):
            each.outcome.set_result(cast(PushResult, result))

    def _body_bytes(self, tables: Sequence[Resolved]) -> int:
        total = sum(pull_bytes(r.ids, r.table.config.dim) for r in tables)
        if total > self._max_body_bytes:
            raise ResourceExhausted(
                f"{total:,} bytes of rows in one pull, the limit is {self._max_body_bytes:,} (max_body_bytes): "
                "ask for fewer ids at once"
            )
        return total

    def _forget(self, name: str, ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Drops those of the rows that the disk cannot give back; their ids."""

        def run() -> npt.NDArray[np.int64]:
            with self._disk_health.reading():
                lost_N = self._table(name).unreadable(ids_N)
            if len(lost_N):
                self._commit.carry_out((), lambda: Ready(Forget(TableIds(name, lost_N))))
            return lost_N

        return self.engine.run(run)

    # on any other thread

    def _begin(
        self,
        ids: Sequence[TableIds],
        caller: Caller,
        check: Callable[[Sequence[Resolved]], None] = lambda tables: None,
    ) -> Rising:
        """Holds the rows of these ids that are in RAM."""

        def run() -> Rising:
            rising = Rising(self._resolve(ids), caller)
            check(rising.tables)
            rising.begin()
            return rising

        return self.engine.run(run, caller)

    def _read_later(self, read: Callable[[], None]) -> None:
        """Has it done on a thread that may wait for the disk. Raises Unavailable when the shard is stopping."""
        try:
            self._io.submit(read)
        except RuntimeError:
            raise Unavailable("the shard is stopping") from None

    def _read(self, rising: Rising) -> None:
        """On a thread that may wait."""
        try:
            with self._disk_health.reading():
                rising.read()
        except BaseException:
            self.engine.post(rising.abandon)
            raise

    def _write(self, write: RowsWrite, caller: Caller) -> WriteResult:
        check_unique(write.ids)
        with self.rounds_give_way():
            rising = self._begin(write.ids, caller)
        (result,) = self._carry_out(write, rising, caller)
        return cast(WriteResult, result)

    def _carry_out(self, write: Write, rising: Rising, caller: Caller) -> Sequence[Result]:
        """Reads what is on disk of its rows, then carries a write out."""
        if rising.waits:
            self._read(rising)

        def run() -> Sequence[Result]:
            try:
                return self._commit.carry_out(
                    write.entries, lambda: Ready(write, rising.tables, rising.finish, rising.let_go)
                )
            except BaseException:
                rising.abandon()
                self._aftermath.run("maintenance", self._maintenance.run)
                raise

        try:
            return self.engine.run(run, caller)
        finally:
            if rising.holds:  # a repeat, or it was not run
                with suppress(Unavailable):
                    self.engine.post(rising.abandon)


def _each(aheads: Sequence[LookAhead], what: str) -> None:
    for ahead in aheads:
        getattr(ahead, what)()


def _most_waiting(config: ServiceConfig) -> int:
    """Parts of rounds. The other half of the calls is for what ends by itself."""
    return config.max_requests // 2


def _open_disk(config: ServiceConfig, shard_id: int, budget: RamBudget) -> Disk | None:
    if config.disk_path is None:
        return None
    folder = Path(config.disk_path).expanduser().absolute()  # of this host, whoever wrote the configuration
    return Disk(folder / f"shard-{shard_id}", budget.aside.cache, write_buffer_bytes=budget.aside.write_buffers)
