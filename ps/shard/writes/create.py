"""CreateTable: creates a table.

said = configuration(array of u8)          JSON, every default written out
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Self

import numpy as np

from ps.config import TableConfig
from ps.errors import TableExists
from ps.shard.ledger import WriteId
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write
from ps.table.cold.cores import ColdCores


@dataclass(frozen=True, eq=False)
class CreateTable(Write):
    """A table of this configuration, which does not exist yet."""

    NUMBER: ClassVar[int] = 8

    config: TableConfig
    cores: ColdCores | None = field(default=None, repr=False)
    """The cores of a tensor-train table, where they are drawn already: they follow from the configuration."""

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns none: a repeat finds the table."""
        return ()

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Makes the table, which is not visible yet."""
        name = self.config.name
        if name in ground.tables:
            raise TableExists(f"table {name!r} exists")
        table = ground.build(self.config, self.cores)
        undo.callback(ground.discard, table)
        table.born = version
        return Planned([(f"table {name!r}", partial(ground.tables.__setitem__, name, table))])

    def say(self, out: Packer) -> None:
        """Packs the configuration."""
        out.array(np.frombuffer(self.config.to_json().encode(), np.uint8), "u1")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads the configuration; raises ConfigError."""
        return cls(TableConfig.from_json(data.array("u1").tobytes()))
