"""Upsert: sets values of rows, and creates those that are missing.

said = table(text) ids dim(u32) values(array of f32)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

from ps.arrays import Rows
from ps.errors import CorruptWrite
from ps.shard.ledger import WriteId
from ps.shard.requests import WriteResult
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_write
from ps.shard.writes.checks import check_rows
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, RowsWrite, changes, only
from ps.table.change import Change
from ps.table.table import Table


@dataclass(frozen=True, eq=False)
class Upsert(RowsWrite):
    """Values for rows, [k, dim] blocks in the order of the ids. Ids are unique, values finite."""

    NUMBER: ClassVar[int] = 3
    CREATES: ClassVar[bool] = True

    blocks: Sequence[Rows]

    def check(self, tables: Sequence[Resolved]) -> None:
        """Raises DimensionMismatch or LengthMismatch if the values do not fit the table."""
        check_rows(tables[0].table.config, len(self.of.ids_N), self.blocks)

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that a row is created for each id that has none, if at all."""
        return of_write(tables[0].table, self.of, self.CREATES)

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Creates the rows that are missing."""
        table = tables[0].table
        change = self._change(table)
        undo.callback(change.undo)
        return changes([(table, change)], [WriteResult.of(version, change.existed_N)])

    def _change(self, table: Table) -> Change:
        return table.writes.plan_upsert(self.of.ids_N, self.blocks)

    def say(self, out: Packer) -> None:
        """Packs ids and values."""
        self.say_ids(out)
        out.numbers("IQ", self.blocks[0].shape[1] if self.blocks else 0, sum(block.size for block in self.blocks))
        out.rows(self.blocks)

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads ids and values."""
        ids = cls.read_ids(data)
        (dim,) = data.numbers("I")
        values = data.array("<f4")
        if len(values) != dim * len(ids.ids_N):
            raise CorruptWrite(f"{len(values):,} values of {len(ids.ids_N):,} rows of dim {dim} in a write")
        return cls(only(entries), ids, [values.reshape(-1, dim)] if dim else [])
