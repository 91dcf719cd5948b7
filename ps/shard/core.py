"""The parts of a shard, connected: what its operations share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ps.config import ServiceConfig
from ps.errors import ResourceExhausted, ShardPoisoned, Unavailable
from ps.policy.placement import Shares
from ps.runtime.places import Places
from ps.shard.assistant import Assistant
from ps.shard.builder import Builder, letting_go
from ps.shard.commit import Commit
from ps.shard.engine import Engine
from ps.shard.ledger import Ledger
from ps.shard.reads.pooled import pull_bytes
from ps.shard.requests import StepRef, Target
from ps.shard.staleness import Staleness
from ps.shard.steps.rise import Rise
from ps.shard.steps.steps import Resolved, Steps
from ps.shard.upkeep.aftermath import Aftermath
from ps.shard.upkeep.building import Building
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.disk_health import DiskHealth
from ps.shard.upkeep.maintenance import Maintenance
from ps.shard.upkeep.pressure import Pressure
from ps.shard.upkeep.saves import Saves
from ps.shard.writes.log import Log
from ps.shard.writes.rounds import Rounds
from ps.shard.writes.write import Ground, Result, table_of
from ps.storage.budget.aside import fitted
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.table.table import Table


class Core:
    """The parts of one shard. Only the engine thread may use them, except `engine` and `budget`."""

    def __init__(
        self,
        shard_id: int,
        config: ServiceConfig,
        places: Callable[[], Places],
        clock: Callable[[], float],
        history: Log,
    ) -> None:
        self.budget = RamBudget(config, Shares() if config.disk.path is not None else None)
        config = fitted(config)
        self.disk = _open_disk(config, shard_id, self.budget)  # before there are threads: it can fail
        self.shard_id = shard_id
        self.clock = clock
        self.tables: dict[str, Table] = {}
        self.max_body_bytes = config.limits.max_body_bytes
        self.disk_health = DiskHealth(clock)
        self.rise = Rise(self.disk_health)
        self.engine = Engine(places(), config.limits.max_requests, clock)
        self.building = Building(self.engine)
        self.assistant = Assistant(self.engine.places.assistant)
        self.capacity = Capacity(config, self.budget)
        self.ledger: Ledger[Result] = Ledger(config.limits.ledger_window, config.limits.max_ledger_bytes)
        self.steps = Steps(
            config.performance.prepare_ttl_s, config.performance.max_steps, config.performance.max_steps_bytes
        )
        self.aftermath = Aftermath()
        self.maintenance = Maintenance(self.tables, self.steps, self.engine, self.disk_health, self.aftermath, clock)
        self.pressure = Pressure(self.budget, self.steps, self.maintain_all, clock)
        room = None if config.memory.ram_bytes is None else self.budget.aside.bodies
        self.rounds = Rounds(config.limits.max_requests // 2, room, clock)  # the other half is for what ends by itself
        self.builder = Builder(self.assistant, self.disk, self.capacity, self.pressure, self.budget)
        self.staleness = Staleness()
        self.saves = Saves(config.memory.ram_bytes)
        self.commit = Commit(
            Ground(self.tables, self.steps, self.staleness, self.builder.build, self.builder.discard),
            self.ledger,
            history,
            self.capacity,
            self.pressure,
            self.rise,
            self.aftermath,
            self.saves,
            self.maintenance.run,
            self.rounds_give_way,
            self.end_rounds,
        )

    def table(self, name: str) -> Table:
        """Returns the table of that name; raises TableNotFound, and ShardPoisoned if the shard is poisoned."""
        self.commit.check_well()
        return table_of(self.tables, name)

    def resolve(self, target: Target) -> list[Resolved]:
        """Returns the ids that a request is about, by table. Raises TableNotFound, StepNotFound and InvalidArgument,
        and ShardPoisoned."""
        self.commit.check_well()
        if isinstance(target, StepRef):
            return self.steps.get(target, self.clock())
        tables = [Resolved(self.table(part.table), part) for part in target]
        for resolved in tables:
            resolved.table.cold.check(resolved.ids.ids_N)
        return tables

    def pull_bytes(self, tables: Sequence[Resolved]) -> int:
        """Returns the bytes that a pull holds until it is sent; raises ResourceExhausted if that is more than one pull
        may."""
        total = sum(pull_bytes(r.ids, r.table.config.dim) for r in tables)
        if total > self.max_body_bytes:
            raise ResourceExhausted(
                f"{total:,} bytes of rows in one pull, the limit is {self.max_body_bytes:,} (limits.max_body_bytes): "
                "ask for fewer ids at once"
            )
        return total

    @contextmanager
    def rounds_give_way(self, group: str = "") -> Iterator[None]:
        """Guards code that takes room, for a part of that group's round or for another call. If there is no room and a
        retry may find some, a waiting round is ended, so that the retry does find it. Threads: any."""
        try:
            yield
        except ResourceExhausted as error:
            if error.retry_after_s is not None:
                self.engine.post(lambda: self.rounds.give_way(group))
            raise

    def end_rounds(self, why: str) -> None:
        """Tells waiting parts of rounds that the shard is poisoned: the other ranks' pushes are refused."""
        self.rounds.end(lambda place: ShardPoisoned(f"{place}: {why}"))

    def wait_until_durable(self, version: int) -> None:
        """Waits on the caller's thread until a version may be acknowledged. Raises LogFailed."""
        self.engine.places.wait(self.commit.log.durable(version))

    def maintain(self, written: Sequence[Table]) -> None:
        """Does the maintenance that is due after a write to these tables. It never fails."""
        self.aftermath.run("maintenance", lambda: self.maintenance.run(written))

    def maintain_all(self) -> None:
        """Does the maintenance that is due for any table, because room is short. It never fails."""
        self.aftermath.run("maintenance", self.maintenance.run_all)

    def close(self) -> None:
        """Finishes queued work, ends the engine and frees everything. May be called again."""
        with suppress(Unavailable):  # closed before
            self.engine.post(self.rounds.close)
        self.maintenance.close()
        self.engine.places.io.shutdown()
        self.engine.places.down.shutdown()
        with ExitStack() as rest:  # whatever fails here, the log is to be whole, and unlocked
            rest.callback(self._close_disk)
            rest.callback(self.commit.log.close)
            rest.callback(self.assistant.close)
            self.engine.close(last=self._close_tables)

    def _close_disk(self) -> None:
        if self.disk is not None:
            with letting_go("of the shard"):
                self.disk.close()

    def _close_tables(self) -> None:
        for name, table in self.tables.items():
            with letting_go(f"of table {name}"):
                table.close()
        self.tables.clear()


def _open_disk(config: ServiceConfig, shard_id: int, budget: RamBudget) -> Disk | None:
    if config.disk.path is None:
        return None
    folder = Path(config.disk.path).expanduser().absolute()  # of this host, whoever wrote the configuration
    return Disk(folder / f"shard-{shard_id}", budget.aside.cache, write_buffer_bytes=budget.aside.write_buffers)
