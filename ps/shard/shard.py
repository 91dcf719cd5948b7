"""The shard: tables, engine, ledger, steps and version, and the operations on them.

Threads: any thread may call any method; the work itself runs on the engine thread. A write either raises and has
changed nothing, or is applied whole and is in the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from ps.config import ServiceConfig, TableConfig, TensorTrain
from ps.errors import (
    CorruptRow,
    DiskError,
    DiskFull,
    TableExists,
    Unavailable,
)
from ps.policy.ranking import EVERY_RANK
from ps.runtime.places import Places, Threads
from ps.shard.caller import PATIENT, Caller
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.operations.prepare import prepare
from ps.shard.operations.pull import pull
from ps.shard.operations.push import Body, push
from ps.shard.operations.round import RoundCalls
from ps.shard.operations.write import write as write_rows
from ps.shard.reads.stream import Allocate, RowStream, plain
from ps.shard.requests import Gradients, Page, PushResult, StepRef, TableIds, Target, Wanted, WriteResult
from ps.shard.staleness import Staleness
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.upkeep.watch import Watch
from ps.shard.writes.arrivals import Arrivals
from ps.shard.writes.checks import check_reports, check_rows, check_unique
from ps.storage.ram.device_rows import check_device
from ps.table.change import Change
from ps.table.cold.cores import ColdCores, cores_of
from ps.table.table import Table

log = logging.getLogger(__name__)

ROWS_ONLY = Wanted()


class Shard:
    """All tables' rows of the partitions that one process owns."""

    def __init__(
        self,
        shard_id: int,
        config: ServiceConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        places: Callable[[], Places] | None = None,
    ) -> None:
        """`places` makes what the work runs on: threads, if nothing is said."""
        self.core = core = Core(shard_id, config or ServiceConfig(), places or (lambda: Threads(str(shard_id))), clock)
        self.shard_id = shard_id
        self.budget = core.budget
        self.tables = core.tables
        self.engine = core.engine
        self.rounds = RoundCalls(core)
        self.arrivals = Arrivals(core.budget.bodies, clock)
        self.watch = Watch(core)

    @property
    def version(self) -> int:
        """How many pushes this shard has applied."""
        return self.core.commit.version

    @property
    def repeats(self) -> int:
        """How many writes were answered from the ledger."""
        return self.core.commit.repeats

    @property
    def staleness(self) -> Staleness:
        """How stale the gradients of pushes were."""
        return self.core.commit.staleness

    @property
    def rows_late(self) -> int:
        """How many rows were read from disk while a pull or a push waited: their prepare was lost, late or not sent."""
        return self.core.rise.rows_late

    # tables

    def create_table(self, config: TableConfig, exist_ok: bool = False) -> bool:
        """True if created, False if it was there with the same configuration; raises TableExists otherwise."""

        def reserve() -> ColdCores | None:
            if self._exists(config, exist_ok):
                return None
            with self.core.pressure.creating(config.name, last=False):
                return cores_of(config, self.core.assistant.share, self.budget)

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
            return self.core.building.run(reserve, install)
        return self.engine.run(install)

    def drop_table(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a table with all its rows; True if there was one."""

        def run() -> bool:
            if name not in self.tables and missing_ok:
                return False
            table = self.core.table(name)
            self.core.steps.forget_table(name)
            del self.tables[name]
            self.core.capacity.drop(table)
            with _letting_go(f"of table {name}"):
                table.close()
            if self.core.disk is not None:
                with _letting_go(f"of table {name}"):
                    self.core.disk.drop(name)
            return True

        return self.engine.run(run)

    # the step protocol

    def prepare(self, ref: StepRef, ids: Sequence[TableIds], caller: Caller = PATIENT) -> int:
        """Resolves the ids of a step ahead of its pull, and brings their rows into RAM. Ids unique in each table.

        Returns the version. Raises ResourceExhausted when prepared steps hold all that they may.
        """
        return self.engine.drive(prepare(self.core, ref, ids, caller), caller)

    def forget(self, ref: StepRef) -> None:
        """No push of this step will follow: what it holds may move again. It need not be held."""
        self.engine.run(lambda: self.core.steps.finish(ref))

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
        stream = RowStream(allocate, self.budget.bodies, self.engine.places.queue(), caller)
        self.engine.start(pull(self.core, target, wanted, stream, caller, held), caller)
        return stream

    def look_ahead(self, target: Target, caller: Caller = PATIENT) -> LookAhead:
        """Begins a push: its rows are brought up while its gradients are still arriving. For a `with` statement."""
        ahead = LookAhead(target)
        ahead.running = self.engine.start(push(self.core, ahead, caller), caller)
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
    ) -> PushResult:
        """Applies finite gradients, all or nothing, once per (worker_id, sequence). Ids unique in each table."""
        ahead.wait()
        ahead.running.reply(Body(write, gradients, pulled_version))
        return ahead.running.result()

    # explicit writes

    def upsert(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets values, creating rows. Ids unique, values finite."""

        def check(table: Table) -> None:
            check_rows(table.config, len(ids.ids_N), blocks)

        return self._write(
            write, ids, check, lambda table: table.writes.plan_upsert(ids.ids_N, blocks), caller, creates=True
        )

    def assign(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets the values of rows that exist. Ids unique, values finite."""

        def check(table: Table) -> None:
            check_rows(table.config, len(ids.ids_N), blocks)

        return self._write(write, ids, check, lambda table: table.writes.plan_assign(ids.ids_N, blocks), caller)

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
                change = table.writes.plan_removal(ids.ids_N)
                return replace(change, existed_N=change.existed_N | np.isin(ids.ids_N, list(lost)))
            same_N = table.unchanged(ids.ids_N, statistics_N2)
            return replace(table.writes.plan_removal(ids.ids_N[same_N]), existed_N=same_N)

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
            check_reports(table.config, len(ids.ids_N), scores_N)

        return self._write(write, ids, check, lambda table: table.writes.plan_report(ids.ids_N, scores_N), caller)

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
            table = self.core.table(name)
            highest = table.ranking.least(least) if least and not cursor else highest_rank
            with self.core.disk_health.reading():
                records, next_cursor = table.page(cursor, n, highest)
            values_ND, scores_N = table.values(records), table.ranking.decayed(records.statistics_N2)
            return Page(records.ids_N, values_ND, scores_N, records.statistics_N2, next_cursor, highest)

        return self.engine.run(run, caller)

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters, all of one moment. `degraded` says what is wrong, if anything is."""
        return self.watch.stats()

    def close(self) -> None:
        """Finishes queued work, ends the engine and gives the tables' memory back."""
        core, places = self.core, self.engine.places
        with suppress(Unavailable):  # closed before
            self.rounds.end()
        core.maintenance.close()
        places.io.shutdown()
        places.down.shutdown()
        self.engine.close(last=self._close_tables)
        core.assistant.close()
        if core.disk is not None:
            with _letting_go("of the shard"):
                core.disk.close()

    # on the engine thread

    def _close_tables(self) -> None:
        for name, table in self.tables.items():
            with _letting_go(f"of table {name}"):
                table.close()
        self.tables.clear()

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
        bounded = self.core.capacity.bounded
        try:
            with self.core.pressure.creating(config.name):
                return Table(
                    config, self.core.assistant.share, self.core.disk, bounded=bounded, budget=self.budget, cores=cores
                )
        except BaseException:
            if self.core.disk is not None:
                with _letting_go(f"of table {config.name}"):
                    self.core.disk.drop(config.name)
            raise

    def _forget(self, name: str, ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Drops those of the rows that the disk cannot give back; their ids."""

        def run() -> npt.NDArray[np.int64]:
            table = self.core.table(name)
            with self.core.disk_health.reading():
                lost_N = table.forget(ids_N)
            self.core.capacity.count([table])
            return lost_N

        return self.engine.run(run)

    # on any other thread

    def _write(
        self,
        write: WriteId,
        ids: TableIds,
        check: Callable[[Table], None],
        plan: Callable[[Table], Change],
        caller: Caller,
        creates: bool = False,
    ) -> WriteResult:
        return self.engine.drive(write_rows(self.core, write, ids, check, plan, caller, creates), caller)


@contextmanager
def _letting_go(whose: str) -> Iterator[None]:
    """Around the end of rows on disk: they are to go, so a disk that is sick by then is worth a line and no error."""
    try:
        yield
    except (DiskError, DiskFull) as error:
        log.warning("rows on disk %s were not let go of in order: %s", whose, error)
