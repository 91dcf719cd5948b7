"""DropTable: drops a table with all its rows.

said = table(text)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

from ps.shard.ledger import WriteId
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, table_of


@dataclass(frozen=True, eq=False)
class DropTable(Write):
    """Drops the table of this name, which exists."""

    NUMBER: ClassVar[int] = 9

    table: str

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns none: a repeat finds no table."""
        return ()

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Reserves nothing. Memory and files are freed when the table is no longer visible."""
        table = table_of(ground.tables, self.table)
        name = f"table {self.table!r}"
        settle = [
            (f"{name}: its steps", partial(ground.steps.forget_table, self.table)),
            (f"{name}: its memory and files", partial(ground.discard, table)),
        ]
        return Planned([(name, partial(ground.tables.__delitem__, self.table))], (), settle, gone=f"{name}:")

    def say(self, out: Packer) -> None:
        """Packs the name."""
        out.text(self.table)

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads the name."""
        return cls(data.text())
