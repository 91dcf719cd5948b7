"""Assign: sets values of rows that exist, and leaves out the others. Its bytes are those of an upsert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ps.shard.writes.upsert import Upsert
from ps.table.change import Change
from ps.table.table import Table


@dataclass(frozen=True, eq=False)
class Assign(Upsert):
    """Values for rows, where they exist."""

    NUMBER: ClassVar[int] = 4
    CREATES: ClassVar[bool] = False

    def _change(self, table: Table) -> Change:
        return table.writes.plan_assign(self.of.ids_N, self.blocks)
