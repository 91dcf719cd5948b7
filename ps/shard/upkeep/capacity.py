"""How many rows a shard has room for, and how many of each table are to stay where there are more.

It decides by configured constants, and what it decides is a write of its own (`ps.shard.writes.evict`): a replay evicts
the same rows, however much room there is by then. The sum of all tables' rows is kept: a write costs the same however
many tables there are that it does not name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ps.config import ServiceConfig
from ps.errors import ResourceExhausted
from ps.policy import eviction
from ps.shard.upkeep.needs import Need
from ps.storage.budget.budget import RamBudget
from ps.table.table import Table


class Capacity:
    """How many rows one shard has room for: on disk if there is one, else in RAM."""

    def __init__(self, config: ServiceConfig, budget: RamBudget) -> None:
        self._disk_bytes = config.disk.max_bytes
        self._has_disk = config.disk.path is not None
        self._budget = budget
        self._bytes_of: dict[Table, int] = {}  # that its rows took when they were last counted
        self._taken = 0

    @property
    def bounded(self) -> bool:
        """Whether the number of rows is bounded."""
        return self._room(1) is not None

    def count(self, tables: Iterable[Table]) -> None:
        """Counts the rows of tables to which something was written."""
        for table in tables:
            nbytes = len(table) * table.bytes_each
            self._taken += nbytes - self._bytes_of.get(table, 0)
            self._bytes_of[table] = nbytes

    def drop(self, table: Table) -> None:
        """Removes a table that was dropped from the count."""
        self._taken -= self._bytes_of.pop(table, 0)

    def too_many(self, tables: Mapping[str, Table], written: Iterable[Table]) -> dict[str, int]:
        """Returns how many rows each table may have, if there are more than there is room for once some tables were
        written to; else nothing."""
        self.count(written)
        room = self._room(len(tables))
        return self._allowed(tables, room) if room is not None and self._taken > room else {}

    def in_the_way(self, tables: Mapping[str, Table], needs: Sequence[Need]) -> dict[str, int]:
        """Returns how many rows each table may have before a write creates rows in RAM for which others can only be
        dropped, where the share that is kept free is too small for them; else nothing. It goes by the write's ids and
        the rows that there are, of which rows of the write may be among those that go.

        Raises ResourceExhausted if all rows of the write together are more than there is room for.
        """
        in_ram = None if self._has_disk else self._budget.for_slots(len(tables))
        if in_ram is None:
            return {}
        room = int(in_ram * eviction.FULL_SHARE)
        if self._taken + sum(need.ids * need.table.bytes_each for need in needs) <= room:
            return {}  # whatever ids they are: usually it ends here
        counted = [(need.count(), need.table.bytes_each) for need in needs]
        created = sum(rows.created * each for rows, each in counted)
        if not created or self._taken + created <= room:
            return {}
        together = sum(rows.total * each for rows, each in counted)
        if together > room:
            raise ResourceExhausted(
                f"{together:,} bytes of rows at once, and memory.ram_bytes leaves room for {room:,}: send fewer ids "
                "at once, raise memory.ram_bytes, give the shard a disk (disk.path) or add shards"
            )
        for need in needs:
            need.table.clock.check()
        return self._allowed(tables, room - together)

    def _allowed(self, tables: Mapping[str, Table], room: int) -> dict[str, int]:
        rows, sizes = [len(table) for table in tables.values()], [table.bytes_each for table in tables.values()]
        allowed = dict(zip(tables, eviction.rows_allowed(rows, sizes, room), strict=True))
        return {name: most for name, most in allowed.items() if len(tables[name]) > most}

    def _room(self, tables: int) -> int | None:
        if self._has_disk:
            return None if self._disk_bytes is None else int(self._disk_bytes * eviction.DISK_SHARE)
        in_ram = self._budget.for_slots(tables)
        return None if in_ram is None else int(in_ram * eviction.RAM_SHARE)
