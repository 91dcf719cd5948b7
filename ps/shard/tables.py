"""The tables of one shard: how they come and go. Threads: any; the work is the engine's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from ps.config import TableConfig, TensorTrain
from ps.errors import DiskError, DiskFull, TableExists
from ps.shard.assistant import Assistant
from ps.shard.commit import Commit, Ready
from ps.shard.engine import Engine
from ps.shard.upkeep.building import Building
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.pressure import Pressure
from ps.shard.writes.create import CreateTable
from ps.shard.writes.drop import DropTable
from ps.shard.writes.write import Write, table_of
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.storage.ram.device_rows import check_device
from ps.storage.ram.tensor_train import ColdCores, cores_of
from ps.table.table import Table

log = logging.getLogger(__name__)


class Builder:
    """Makes tables, and frees what they hold. Called by the engine thread."""

    def __init__(
        self, assistant: Assistant, disk: Disk | None, capacity: Capacity, pressure: Pressure, budget: RamBudget
    ) -> None:
        self._assistant = assistant
        self._disk = disk
        self._capacity = capacity
        self._pressure = pressure
        self._budget = budget

    def reserve(self, config: TableConfig) -> ColdCores:
        """Returns the cores of a tensor-train table, with room for them, to be drawn by any thread."""
        with self._pressure.creating(config.name, last=False):
            return cores_of(config, self._assistant.share, self._budget)

    def build(self, config: TableConfig, cores: ColdCores | None) -> Table:
        """Makes a table. One that finds no room leaves nothing behind, so it may be asked for again."""
        bounded = self._capacity.bounded
        try:
            with self._pressure.creating(config.name):
                return Table(
                    config, self._assistant.share, self._disk, bounded=bounded, budget=self._budget, cores=cores
                )
        except BaseException:
            self._drop(config.name)
            raise

    def discard(self, table: Table) -> None:
        """Frees what a table holds in RAM and on disk."""
        with letting_go(f"of table {table.config.name}"):
            table.close()
        self._drop(table.config.name)

    def _drop(self, name: str) -> None:
        if self._disk is not None:
            with letting_go(f"of table {name}"):
                self._disk.drop(name)


class Tables:
    """Creates and drops tables."""

    def __init__(
        self, tables: dict[str, Table], builder: Builder, building: Building, engine: Engine, commit: Commit
    ) -> None:
        self._tables = tables
        self._builder = builder
        self._building = building
        self._engine = engine
        self._commit = commit

    def create(self, config: TableConfig, exist_ok: bool) -> bool:
        """Returns True if it was created, False if it was there with the same configuration; raises TableExists."""
        if config.device != "cpu":
            check_device(config.device)  # here, not on the engine's time: the first one imports torch
        install = partial(self._install, config, exist_ok)
        if isinstance(config.cold, TensorTrain):
            return self._building.run(partial(self._reserve, config, exist_ok), install)
        return self._engine.run(install)

    def drop(self, name: str, missing_ok: bool) -> bool:
        """Drops a table with all its rows; returns True if there was one."""

        def run() -> bool:
            self._commit.check_well()
            if name not in self._tables and missing_ok:
                return False
            table_of(self._tables, name)
            return self._carry_out(DropTable(name))

        return self._engine.run(run)

    def _reserve(self, config: TableConfig, exist_ok: bool) -> ColdCores | None:
        self._commit.check_well()
        return None if self._exists(config, exist_ok) else self._builder.reserve(config)

    def _install(self, config: TableConfig, exist_ok: bool, cores: ColdCores | None = None) -> bool:
        try:
            self._commit.check_well()
            if self._exists(config, exist_ok):
                return False
            given, cores = cores, None  # the table's, whatever comes of it
            return self._carry_out(CreateTable(config, given))
        finally:
            if cores is not None:
                cores.close()

    def _carry_out(self, write: Write) -> bool:
        self._commit.carry_out((), lambda: Ready(write))
        return True

    def _exists(self, config: TableConfig, exist_ok: bool) -> bool:
        """Raises TableExists where a table of that name is not what is asked for."""
        existing = self._tables.get(config.name)
        if existing is None:
            return False
        if not exist_ok:
            raise TableExists(f"table {config.name!r} exists; pass exist_ok=True to use it as it is")
        if existing.config != config:
            raise TableExists(f"table {config.name!r} exists as {existing.config!r}; you asked for {config!r}")
        return True


@contextmanager
def letting_go(whose: str) -> Iterator[None]:
    """Around the end of rows on disk: they are to go, so a disk that is sick by then is worth a line and no error."""
    try:
        yield
    except (DiskError, DiskFull) as error:
        log.warning("rows on disk %s were not let go of in order: %s", whose, error)
