"""Rows that make room for others: which go is decided here, and they go by writes of the shard's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from ps.errors import DiskError, DiskFull
from ps.shard.requests import TableIds
from ps.shard.upkeep.capacity import Capacity
from ps.shard.upkeep.needs import Need
from ps.shard.writes.evict import Evict
from ps.shard.writes.evict_rows import EvictRows
from ps.shard.writes.write import Write
from ps.table.table import Table

log = logging.getLogger(__name__)


class Evictions:
    """The evictions of one shard. The engine thread's."""

    def __init__(
        self, tables: Mapping[str, Table], capacity: Capacity, carry_out: Callable[[Write], Sequence[Table]]
    ) -> None:
        """`carry_out` carries out a write for which nothing has to rise or to make way, and returns whose rows went."""
        self._tables, self._capacity, self._carry_out = tables, capacity, carry_out

    def before(self, needs: Sequence[Need]) -> None:
        """Makes room for a write that needs so many rows. Raises ResourceExhausted where there is none."""
        self._evict(self._capacity.in_the_way(self._tables, needs))

    def after(self, written: Sequence[Table]) -> None:
        """Evicts rows where there are too many after a write to these tables."""
        most = self._capacity.too_many(self._tables, written)
        self._evict(most, [table.config.name for table in written])

    def _evict(self, most: Mapping[str, int], others: Iterable[str] = ()) -> None:
        """Evicts rows of the tables that may have so many, and of others by their own bound."""
        if most:
            self._make(Evict(most))
        for name in dict.fromkeys([*most, *others]):
            try:
                ids_N, statistics_N2 = self._tables[name].clock.surplus(most.get(name))
                if len(ids_N):
                    self._make(EvictRows(TableIds(name, ids_N), statistics_N2))
            except (DiskError, DiskFull) as error:  # the write before it is applied, and must be answered so
                log.warning("table %s has more rows than it may until the next write: %s", name, error)

    def _make(self, write: Write) -> None:
        self._capacity.count(self._carry_out(write))
