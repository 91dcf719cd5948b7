"""Remove: drops rows.

said = table(text) ids conditional(u8) [statistics(array of u32, two an id)]
more = lost(array of i64)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids
from ps.errors import LengthMismatch
from ps.shard.ledger import WriteId
from ps.shard.requests import WriteResult
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_write
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, RowsWrite, changes, only


@dataclass(frozen=True, eq=False)
class Remove(RowsWrite):
    """Drops rows. Ids are unique."""

    NUMBER: ClassVar[int] = 5

    statistics_N2: npt.NDArray[np.uint32] | None = None
    """Statistics as an export gave them: only rows that still have these are dropped, which nobody has pushed since.
    None: every row is dropped."""
    lost_M: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Ids of the request whose rows the disk could not give back and that were forgotten just before: they existed."""

    def check(self, tables: Sequence[Resolved]) -> None:
        """Raises LengthMismatch if there are not two statistics for each id."""
        if self.statistics_N2 is not None and len(self.statistics_N2) != len(self.of.ids_N):
            raise LengthMismatch(f"statistics of {len(self.statistics_N2)} rows for {len(self.of.ids_N)} ids")

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that rows must be in RAM to be removed."""
        return of_write(tables[0].table, self.of, creates=False)

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Drops the disk's copies of the rows, which are in RAM."""
        table, ids_N = tables[0].table, self.of.ids_N
        if self.statistics_N2 is None:
            change = table.writes.plan_removal(ids_N)
            existed_N = change.existed_N | np.isin(ids_N, self.lost_M)
        else:
            existed_N = table.unchanged(ids_N, self.statistics_N2)
            change = table.writes.plan_removal(ids_N[existed_N])
        change = replace(change, existed_N=existed_N)
        return changes([(table, change)], [WriteResult.of(version, existed_N)])

    def say(self, out: Packer) -> None:
        """Packs ids and statistics."""
        self.say_ids(out)
        out.numbers("B", int(self.statistics_N2 is not None))
        if self.statistics_N2 is not None:
            out.array(self.statistics_N2, "<u4")

    def tell(self, out: Packer) -> None:
        """Packs which rows were lost."""
        out.array(self.lost_M, "<i8")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads what was lost, ids and statistics."""
        lost_M, ids = data.array("<i8"), cls.read_ids(data)
        statistics_N2 = data.array("<u4").reshape(-1, 2) if data.number("B") else None
        return cls(only(entries), ids, statistics_N2, lost_M)
