"""Forget: drops rows that the disk cannot give back, by their ids alone. The shard does it by itself, before a removal.

said = table(text) ids
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

from ps.shard.ledger import WriteId
from ps.shard.requests import TableIds
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, changes, table_of


@dataclass(frozen=True, eq=False)
class Forget(Write):
    """Drops these rows. A replay may find them sound, and drops them as well."""

    NUMBER: ClassVar[int] = 7

    of: TableIds

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns none: no client asked for it."""
        return ()

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Drops the disk's copies of the rows, which cannot be read."""
        table = table_of(ground.tables, self.of.table)
        return changes([(table, table.writes.plan_forget(self.of.ids_N))], ())

    def say(self, out: Packer) -> None:
        """Packs table and ids."""
        out.text(self.of.table)
        out.ids(self.of.ids_N, None)

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads table and ids."""
        table = data.text()
        return cls(TableIds(table, data.ids()[0]))
