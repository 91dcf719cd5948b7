"""The shard: tables, engine, ledger, steps and version, and the operations on them.

Threads: any thread may call any method; the work itself runs on the engine thread. A write either raises and has
changed nothing, or is applied whole and is in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows
from ps.config import ServiceConfig, TableConfig
from ps.policy.ranking import EVERY_RANK
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.places import Operation, Places, Threads
from ps.shard.caller import PATIENT, Caller
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.operations.export import export_page
from ps.shard.operations.prepare import prepare
from ps.shard.operations.pull import pull
from ps.shard.operations.push import Body, push
from ps.shard.operations.round import RoundCalls
from ps.shard.operations.write import carry_out, remove, replay
from ps.shard.reads.stream import Allocate, RowStream, plain
from ps.shard.requests import Gradients, Page, PushResult, StepRef, TableIds, Target, Wanted, WriteResult
from ps.shard.steps.look_ahead import LookAhead
from ps.shard.tables import Tables
from ps.shard.upkeep.watch import Watch
from ps.shard.writes.arrivals import Arrivals
from ps.shard.writes.assign import Assign
from ps.shard.writes.log import Log, NoLog
from ps.shard.writes.remove import Remove
from ps.shard.writes.report import Report
from ps.shard.writes.upsert import Upsert
from ps.shard.writes.write import Result, Write

ROWS_ONLY = Wanted()


class Shard:
    """All tables' rows in the partitions that one process has."""

    def __init__(
        self,
        shard_id: int,
        config: ServiceConfig | None = None,
        clock: Clock = SYSTEM_CLOCK,
        places: Callable[[], Places] | None = None,
        history: Log | None = None,
    ) -> None:
        """places: makes the places where work runs; threads by default. history: where writes are logged before they
        are applied; None: nowhere."""
        threads = places or (lambda: Threads(str(shard_id)))
        self.core = core = Core(shard_id, config or ServiceConfig(), threads, clock.monotonic, history or NoLog())
        self.shard_id = shard_id
        self.budget = core.budget
        self.tables = core.tables
        self.commit = core.commit
        self.staleness = core.staleness
        self.engine = core.engine
        self.rounds = RoundCalls(core)
        self.arrivals = Arrivals(core.budget.bodies, clock)
        self.watch = Watch(core)
        self._tables = Tables(core)

    @property
    def version(self) -> int:
        """How many writes this shard has carried out."""
        return self.core.commit.version

    @property
    def poisoned(self) -> str | None:
        """Why the shard accepts no writes and serves no rows any more; None while it is well. For any thread."""
        return self.core.commit.poisoned

    # tables

    def create_table(self, config: TableConfig, exist_ok: bool = False) -> bool:
        """Creates a table. Returns True if it was created, False if it existed with the same configuration; raises
        TableExists if it has another one."""
        return self._tables.create(config, exist_ok)

    def drop_table(self, name: str, missing_ok: bool = False) -> bool:
        """Drops a table with all its rows; returns True if it existed."""
        return self._tables.drop(name, missing_ok)

    def set_optimizer(self, write: WriteId, name: str, settings: Mapping[str, float], cores: bool = False) -> int:
        """Gives an optimizer of a table other settings for later pushes; returns the version. Raises ConfigError."""
        return self._tables.set_optimizer(write, name, settings, cores)

    # the step protocol

    def prepare(self, ref: StepRef, ids: Sequence[TableIds], caller: Caller = PATIENT) -> int:
        """Resolves the ids of a step ahead of its pull, and brings their rows into RAM. Ids unique in each table.
        Returns the version. Raises ResourceExhausted when prepared steps hold all that they may."""
        return self.engine.drive(prepare(self.core, ref, ids, caller), caller)

    def forget(self, ref: StepRef) -> None:
        """Notes that no push of this step, if it is held, will follow, so that its rows may move again."""
        self.engine.run(lambda: self.core.steps.finish(ref))

    def pull(
        self,
        target: Target,
        wanted: Wanted = ROWS_ONLY,
        allocate: Allocate = plain,
        caller: Caller = PATIENT,
        held: int = 0,
    ) -> RowStream:
        """Returns a stream of rows in the order of the ids; changes nothing. Its `head()` raises the errors.

        allocate: gives the memory of each chunk. held: bytes of the budget that the caller holds for this pull.
        """
        stream = RowStream(allocate, self.budget.bodies, self.engine.places.queue(), caller)
        self.engine.start(pull(self.core, target, wanted, stream, caller, held), caller)
        return stream

    def look_ahead(self, target: Target, caller: Caller = PATIENT) -> LookAhead:
        """Begins a push, for a `with` statement: its rows are brought up while its gradients are still arriving."""
        ahead = LookAhead(target)
        ahead.begin(self.engine.start(push(self.core, ahead, caller), caller))
        return ahead

    def push(
        self,
        write: WriteId,
        ahead: LookAhead,
        gradients: Sequence[Gradients],
        pulled_version: int = 0,
        ids_digest: int = 0,
    ) -> PushResult:
        """Applies finite gradients, all or nothing, once per (worker_id, sequence). Ids are unique in each table."""
        ahead.wait()
        ahead.running.advance(Body(write, gradients, pulled_version, ids_digest))
        result = ahead.running.result()
        self.core.wait_until_durable(result.version)
        return result

    # explicit writes

    def upsert(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets values, creating rows. Ids must be unique, values finite."""
        return self._written(carry_out(self.core, Upsert(write, ids, blocks), caller), caller)

    def assign(self, write: WriteId, ids: TableIds, blocks: Sequence[Rows], caller: Caller = PATIENT) -> WriteResult:
        """Sets the values of rows that exist. Ids must be unique, values finite."""
        return self._written(carry_out(self.core, Assign(write, ids, blocks), caller), caller)

    def remove(
        self,
        write: WriteId,
        ids: TableIds,
        statistics_N2: npt.NDArray[np.uint32] | None = None,
        caller: Caller = PATIENT,
    ) -> WriteResult:
        """Drops rows, also those that cannot be read any more. Ids must be unique. With statistics, as exported, only
        rows that still have these are dropped, which are those that were not pushed since."""
        return self._written(remove(self.core, Remove(write, ids, statistics_N2), caller), caller)

    def report_importance(
        self, write: WriteId, ids: TableIds, scores_N: npt.NDArray[np.float32], caller: Caller = PATIENT
    ) -> WriteResult:
        """Adds to the importance of rows that exist, which counts as a use of them. Ids must be unique."""
        return self._written(carry_out(self.core, Report(write, ids, scores_N), caller), caller)

    def replay(self, write: Write) -> Sequence[Result]:
        """Carries out a write that a log has. Returns the result of each of its entries."""
        return self.engine.drive(replay(self.core, write))

    # reading

    def export_page(
        self, name: str, cursor: int, n: int, least: int = 0, highest_rank: int = EVERY_RANK, caller: Caller = PATIENT
    ) -> Page:
        """Returns up to n rows. A row that exists during all pages is in exactly one.

        With `least` on the first page, and its `highest_rank` on the others, the pages have so many of the least
        important rows, or some more.
        """
        return self.engine.drive(export_page(self.core, name, cursor, n, least, highest_rank), caller)

    def stats(self) -> dict[str, object]:
        """Returns rows, bytes and counters, all of one moment. `degraded` says what is wrong, if anything is."""
        return self.watch.stats()

    def close(self) -> None:
        """Finishes queued work, ends the engine and gives the tables' memory back."""
        self.core.close()

    def _written(self, operation: Operation[Sequence[Result]], caller: Caller) -> WriteResult:
        (result,) = self.engine.drive(operation, caller)
        written = cast(WriteResult, result)
        self.core.wait_until_durable(written.version)
        return written
