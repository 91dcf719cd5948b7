"""Makes the tables of one shard, and frees what they hold. Called by the engine thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ps.config import TableConfig
from ps.errors import DiskError, DiskFull
from ps.shard.assistant import Assistant
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.pressure import Pressure
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.table.cold.cores import ColdCores, cores_of
from ps.table.table import Table

log = logging.getLogger(__name__)


class Builder:
    """Makes and frees tables."""

    def __init__(
        self, assistant: Assistant, disk: Disk | None, capacity: Capacity, pressure: Pressure, budget: RamBudget
    ) -> None:
        self._assistant = assistant
        self._disk = disk
        self._capacity = capacity
        self._pressure = pressure
        self._budget = budget

    def reserve(self, config: TableConfig) -> ColdCores:
        """Reserves room for the cores of a tensor-train table and returns them, to be drawn by any thread."""
        with self._pressure.creating(config.name, last=False):
            return cores_of(config, self._assistant.share, self._budget)

    def build(self, config: TableConfig, cores: ColdCores | None) -> Table:
        """Makes a table. If there is no room for it, nothing is left behind, so the call may be repeated."""
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
        self._capacity.drop(table)
        with letting_go(f"of table {table.config.name}"):
            table.close()
        self._drop(table.config.name)

    def _drop(self, name: str) -> None:
        if self._disk is not None:
            with letting_go(f"of table {name}"):
                self._disk.drop(name)


@contextmanager
def letting_go(whose: str) -> Iterator[None]:
    """Guards the freeing of rows on disk: an error of the disk is only logged, because the rows are dropped anyway."""
    try:
        yield
    except (DiskError, DiskFull) as error:
        log.warning("rows on disk %s were not let go of in order: %s", whose, error)
