"""How many rows a shard has room for, and what it does when there are more: a part of the write that created them.

It goes by configured constants and by what is in the log, so that every replay evicts the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping

from ps.config import ServiceConfig
from ps.policy import eviction
from ps.storage.budget import RamBudget
from ps.table import Table


class Capacity:
    """One shard's: on disk if there is one, else in RAM."""

    def __init__(self, config: ServiceConfig, budget: RamBudget) -> None:
        self._disk_bytes = config.disk_bytes
        self._has_disk = config.disk_path is not None
        self._budget = budget

    @property
    def bounded(self) -> bool:
        """Whether there is a bound."""
        return self._room(1) is not None

    def evict(self, tables: Mapping[str, Table]) -> None:
        """Drops the least important rows if there are more than there is room for."""
        room = self._room(len(tables))
        if room is not None:
            all_ = list(tables.values())
            rows, sizes = [len(table) for table in all_], [table.bytes_each for table in all_]
            for table, most in zip(all_, eviction.rows_allowed(rows, sizes, room), strict=True):
                table.evict(most)

    def _room(self, tables: int) -> int | None:
        if self._has_disk:
            return None if self._disk_bytes is None else int(self._disk_bytes * eviction.DISK_SHARE)
        in_ram = self._budget.for_slots(tables)
        return None if in_ram is None else int(in_ram * eviction.RAM_SHARE)
