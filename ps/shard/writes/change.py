"""ChangeTable: the optimizer of a table has other settings, for all pushes that come later in the log.

said = table(text) of(u8) n(u16) name(text)* values(array of f64)     of: 0 the table's optimizer, 1 that of its cores;
                                                                      names ascend
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ps.errors import CorruptWrite
from ps.shard.ledger import WriteId
from ps.shard.requests import WriteResult
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, only, table_of


@dataclass(frozen=True, eq=False)
class ChangeTable(Write):
    """Values of settings of an optimizer, by name; the others stay as they are."""

    NUMBER: ClassVar[int] = 10

    entry: WriteId
    table: str
    settings: Mapping[str, float]
    cores: bool = False
    """Whether they are of the optimizer that the cores of a tensor-train table have for themselves."""

    @property
    def entries(self) -> Sequence[WriteId]:
        """One call."""
        return [self.entry]

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Makes the configuration that the table will have. Reserves nothing."""
        change = table_of(ground.tables, self.table).plan_optimizer(self.settings, self.cores)
        return Planned([(f"table {self.table!r}", change.make)], [WriteResult.of(version, change.existed_N)])

    def say(self, out: Packer) -> None:
        """Packs the names and the values."""
        names = sorted(self.settings)
        out.text(self.table)
        out.numbers("BH", int(self.cores), len(names))
        for name in names:
            out.text(name)
        out.array(np.array([self.settings[name] for name in names], np.float64), "<f8")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads the names and the values."""
        table = data.text()
        cores, n = data.numbers("BH")
        names = [data.text() for _ in range(n)]
        values_N = data.array("<f8")
        if cores > 1 or names != sorted(set(names)) or len(values_N) != n:
            raise CorruptWrite(f"a change of a table has {len(values_N):,} values for {n:,} settings, or in disorder")
        return cls(only(entries), table, dict(zip(names, values_N.tolist(), strict=True)), bool(cores))
