"""EvictRows: rows that were chosen one by one go, where those of one rank and lot are more than may go at once. The
shard does it by itself, after an `Evict`.

said = table(text) ids statistics(array of u32, two an id)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ps.errors import CorruptWrite
from ps.shard.ledger import WriteId
from ps.shard.requests import TableIds
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, changes, table_of


@dataclass(frozen=True, eq=False)
class EvictRows(Write):
    """Drops these rows, which have these statistics, uint32 [N, 2]. Which rows go was decided by a look at all rows of
    the table, on disk too."""

    NUMBER: ClassVar[int] = 12

    of: TableIds
    statistics_N2: npt.NDArray[np.uint32]

    @property
    def entries(self) -> Sequence[WriteId]:
        """Nobody asked for it."""
        return ()

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Drops what the disk has of the rows."""
        table = table_of(ground.tables, self.of.table)
        return changes([(table, table.clock.plan_eviction_of(self.of.ids_N, self.statistics_N2))], ())

    def say(self, out: Packer) -> None:
        """Packs table, ids and statistics."""
        out.text(self.of.table)
        out.ids(self.of.ids_N, None)
        out.array(self.statistics_N2, "<u4")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads table, ids and statistics. Raises CorruptWrite where there are not two numbers an id."""
        table = data.text()
        ids_N, statistics = data.ids()[0], data.array("<u4")
        if len(statistics) != 2 * len(ids_N):
            raise CorruptWrite(f"{len(statistics)} numbers of statistics for {len(ids_N)} rows: expected two for each")
        return cls(TableIds(table, ids_N), statistics.reshape(-1, 2))
