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
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from ps.config import ServiceConfig, TableConfig, TensorTrain
from ps.errors import (
    CorruptRow,
    DiskError,
    DiskFull,
    ResourceExhausted,
    TableExists,
    Unavailable,
)
from ps.policy.placement import Shares
from ps.policy.ranking import EVERY_RANK
from ps.round import Round
from ps.shard.assistant import Assistant
from ps.shard.caller import PATIENT, Caller
from ps.shard.commit import Commit, table_of
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
from ps.shard.upkeep.account import Account
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.building import Building
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.disk_health import DiskHealth
from ps.shard.upkeep.maintenance import Maintenance
from ps.shard.upkeep.pressure import Pressure
from ps.shard.writes.arrivals import Arrivals
from ps.shard.writes.checks import check_gradients, check_tables, check_unique
from ps.shard.writes.parts import Part, Waiting, round_bytes, summed
from ps.shard.writes.rounds import Rounds
from ps.storage.budget.aside import fitted
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.storage.ram.device_rows import check_device
from ps.storage.ram.tensor_train import ColdCores, cores_of
from ps.table.change import Change
from ps.table.push_count import ROUNDS
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
        self, shard_id: int, config: ServiceConfig | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        config = config or ServiceConfig()
        self.budget = RamBudget(config, Shares() if config.disk_path is not None else None)
        config = fitted(config)
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
        self._ledger: Ledger[PushResult | WriteResult] = Ledger(config.ledger_window, config.max_ledger_bytes)
        self._steps = Steps(config.prepare_ttl_s, config.max_steps, config.max_steps_bytes)
        self._maintenance = Maintenance(self.tables, self._steps, self.engine, self._down, self._disk_health, clock)
        self._aftermath = Aftermath()
        maintain = partial(self._aftermath.run, "maintenance", self._maintenance.run_all)
        self._pressure = Pressure(self.budget, self._steps, maintain, clock)
        self._account = Account()
        room = None if config.ram_bytes is None else self.budget.aside.bodies
        self._rounds = Rounds(_most_waiting(config), room, clock)
        self._late = Late(self._disk_health)
        self._commit = Commit(
            self.tables,
            self._ledger,
            self._steps,
            self._capacity,
            self._pressure,
            self._late,
            self._aftermath,
            self._maintenance.run,
            self.rounds_give_way,
        )
        self.arrivals = Arrivals(self.budget.bodies, clock)
        self._seen: tuple[dict[str, object], float] = ({}, clock())
        self._look()

    @property
    def version(self) -> int:
        """How many pushes this shard has applied."""
        return self._commit.version

    @property
    def repeats(self) -> int:
        """How many writes were answered from the ledger."""
        return self._commit.repeats

    @property
    def staleness(self) -> Staleness:
        """How stale the gradients of pushes were."""
        return self._commit.staleness

    @property
    def rows_late(self) -> int:
        """How many rows were read from disk while a pull or a push waited: their prepare was lost, late or not sent."""
        return self._late.rows

    # tables

    def create_table(self, config: TableConfig, exist_ok: bool = False) -> bool:
        """True if created, False if it was there with the same configuration; raises TableExists otherwise."""

        def reserve() -> ColdCores | None:
            if self._exists(config, exist_ok):
                return None
            with self._pressure.creating(config.name, last=False):
                return cores_of(config, self._assistant.share, self.budget)

        def install(cores: ColdCores | None = None) -> bool:
            try:
                if self._exists(config, exist_ok):
                    return False
                given, cores = cores, None  # the table's, whatever comes of it
                self.tables[config.name] = self._new_table(config, given)
                return True
            finally:
                if cores is not None:
                    cores.close()

        if config.device != "cpu":
            check_device(config.device)  # here, not on the engine's time: the first one imports torch
        if isinstance(config.cold, TensorTrain):
            return self._building.run(reserve, install)
        return self.engine.run(install)

    def drop_table(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a table with all its rows; True if there was one."""

        def run() -> bool:
            if name not in self.tables and missing_ok:
                return False
            table = self._table(name)
            self._steps.forget_table(name)
            del self.tables[name]
            self._capacity.drop(table)
            with _letting_go(f"of table {name}"):
                table.close()
            if self._disk is not None:
                with _letting_go(f"of table {name}"):
                    self._disk.drop(name)
            return True

        return self.engine.run(run)

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
    ) -> PushResult:
        """Applies finite gradients, all or nothing, once per (worker_id, sequence). Ids unique in each table."""
        ahead.wait()
        gradients = spread(ahead.ids, gradients)  # on the caller's time

        def apply() -> PushResult:
            tables = self._tables_of(ahead)
            check_gradients(tables, gradients)
            part = Part(write, ahead, gradients, pulled_version)
            (result,) = self._commit.push(tables, gradients, [part], write.worker_id)
            return result

        result, repeated = self.engine.run(lambda: self._commit.once(write, apply), caller)
        return replace(result, repeated=repeated)

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
    ) -> Waiting:
        """Pushes together with the round's other ranks, whose pushes are summed and make one version. The
        outcome of what is returned comes when the last of them has joined: a PushResult, or the error of all.

        It may wait for `wait_s`, and for as long as its caller does: who knows that these have ended calls `expire` or
        `leave_round`. Then nothing of this push was applied, and it may be sent again. `held`: bytes of the budget that
        its call holds.
        """
        self._rounds.check(place)
        ahead.wait()
        gradients = spread(ahead.ids, gradients)  # on the caller's time
        part = Part(write, ahead, gradients, pulled_version)
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

        def check(table: Table) -> None:
            table.check(len(ids.ids_N), blocks)

        return self._write(write, ids, check, lambda table: table.plan_upsert(ids.ids_N, blocks), caller, creates=True)

    def assign(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets the values of rows that exist. Ids unique, values finite."""

        def check(table: Table) -> None:
            table.check(len(ids.ids_N), blocks)

        return self._write(write, ids, check, lambda table: table.plan_assign(ids.ids_N, blocks), caller)

    def remove(
        self,
        write: WriteId,
        ids: TableIds,
        statistics_N2: npt.NDArray[np.uint32] | None = None,
        caller: Caller = PATIENT,
    ) -> WriteResult:
        """Drops rows, also those that cannot be read any more. Ids unique. With statistics, as exported: only rows that
        still have them, which are those that nobody has pushed since."""
        lost: set[int] = set()

        def plan(table: Table) -> Change:
            if statistics_N2 is None:
                change = table.plan_removal(ids.ids_N)
                return replace(change, existed_N=change.existed_N | np.isin(ids.ids_N, list(lost)))
            same_N = table.unchanged(ids.ids_N, statistics_N2)
            return replace(table.plan_removal(ids.ids_N[same_N]), existed_N=same_N)

        while True:
            try:
                return self._write(write, ids, lambda table: None, plan, caller)
            except CorruptRow as error:  # those rows cannot be brought up to be removed
                lost |= set(self._forget(ids.table, np.array(error.ids, np.int64)).tolist())

    def report_importance(
        self, write: WriteId, ids: TableIds, scores_N: npt.NDArray[np.float32], caller: Caller = PATIENT
    ) -> WriteResult:
        """Adds to the importance of rows that exist, which counts as a use of them. Ids unique."""

        def check(table: Table) -> None:
            table.check_reports(len(ids.ids_N), scores_N)

        return self._write(write, ids, check, lambda table: table.plan_report(ids.ids_N, scores_N), caller)

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
            with _letting_go(f"of table {name}"):
                table.close()
        self.tables.clear()
        if self._disk is not None:
            with _letting_go("of the shard"):
                self._disk.close()

    # on the engine thread

    def _look(self) -> None:
        stats: dict[str, object] = {
            "shard_id": self.shard_id,
            "version": self.version,
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
            "tables": {name: table.stats() for name, table in self.tables.items()},
            "bytes": self.memory_usage(),
        }
        self._seen = stats, self._clock()

    def _exists(self, config: TableConfig, exist_ok: bool) -> bool:
        """Raises TableExists where a table of that name is not what is asked for."""
        existing = self.tables.get(config.name)
        if existing is None:
            return False
        if not exist_ok:
            raise TableExists(f"table {config.name!r} exists; pass exist_ok=True to use it as it is")
        if existing.config != config:
            raise TableExists(f"table {config.name!r} exists as {existing.config!r}; you asked for {config!r}")
        return True

    def _new_table(self, config: TableConfig, cores: ColdCores | None) -> Table:
        """One that finds no room leaves nothing behind, so it may be asked for again."""
        bounded = self._capacity.bounded
        try:
            with self._pressure.creating(config.name):
                return Table(
                    config, self._assistant.share, self._disk, bounded=bounded, budget=self.budget, cores=cores
                )
        except BaseException:
            if self._disk is not None:
                with _letting_go(f"of table {config.name}"):
                    self._disk.drop(config.name)
            raise

    def _table(self, name: str) -> Table:
        return table_of(self.tables, name)

    def _resolve(self, target: Target) -> list[Resolved]:
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
        known = self._commit.known(part.write)
        if known is not None:
            return Waiting.ended(place, part, replace(cast(PushResult, known), repeated=True))
        tables = self._tables_of(part.ahead)
        check_gradients(tables, part.gradients)
        nbytes = max(round_bytes(tables, part.gradients), held)
        waiting = Waiting(place, part, [resolved.ids for resolved in tables], wait_s, nbytes)
        complete = self._rounds.join(waiting)
        if complete:
            self._apply_round(complete)
        return waiting

    def _apply_round(self, waiting: Sequence[Waiting]) -> None:
        """Those of all ranks, by rank: each gets its result, or all of them the error."""
        try:
            tables = [self._table(ids.table) for ids in waiting[0].ids]
            together = [summed(table, number, waiting) for number, table in enumerate(tables)]
            resolved = [Resolved(table, ids) for table, (ids, _) in zip(tables, together, strict=True)]
            results = self._commit.push(
                resolved, [sums for _, sums in together], [each.part for each in waiting], ROUNDS
            )
        except BaseException as error:  # noqa: BLE001  handed to those who wait
            for each in waiting:
                each.outcome.set_exception(error)
            return
        for each, result in zip(waiting, results, strict=True):
            each.outcome.set_result(result)

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
            table = self._table(name)
            with self._disk_health.reading():
                lost_N = table.forget(ids_N)
            self._capacity.count([table])
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

    def _write(
        self,
        write: WriteId,
        ids: TableIds,
        check: Callable[[Table], None],
        plan: Callable[[Table], Change],
        caller: Caller,
        creates: bool = False,
    ) -> WriteResult:
        """`check` raises what is wrong with the write, before rows make room for it. `creates`: a row for each id that
        has none."""
        check_unique([ids])
        with self.rounds_give_way():
            rising = self._begin([ids], caller)
        if rising.waits:
            self._read(rising)

        def run() -> WriteResult:
            try:
                return self._commit.write(write, ids, rising, check, plan, creates)
            finally:
                self._aftermath.run("letting go of rows", rising.let_go)
                written = [resolved.table for resolved in rising.tables]
                self._aftermath.run("maintenance", partial(self._maintenance.run, written))

        try:
            return self.engine.run(lambda: self._commit.once(write, run), caller)[0]
        finally:
            if rising.holds:  # a repeat, or refused: it was not run
                with suppress(Unavailable):
                    self.engine.post(rising.abandon)


@contextmanager
def _letting_go(whose: str) -> Iterator[None]:
    """Around the end of rows on disk: they are to go, so a disk that is sick by then is worth a line and no error."""
    try:
        yield
    except (DiskError, DiskFull) as error:
        log.warning("rows on disk %s were not let go of in order: %s", whose, error)


def _most_waiting(config: ServiceConfig) -> int:
    """Parts of rounds. The other half of the calls is for what ends by itself."""
    return config.max_requests // 2


def _open_disk(config: ServiceConfig, shard_id: int, budget: RamBudget) -> Disk | None:
    if config.disk_path is None:
        return None
    folder = Path(config.disk_path).expanduser().absolute()  # of this host, whoever wrote the configuration
    return Disk(folder / f"shard-{shard_id}", budget.aside.cache, write_buffer_bytes=budget.aside.write_buffers)
