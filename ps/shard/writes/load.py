"""Load: gives rows their bytes and their importance, as another shard had them, and creates those that are missing.

said = table(text) ids width(u32) pushes(u64) rows(array of f32) scores(array of f32)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from ps.arrays import Rows, Scores
from ps.config import TensorTrain
from ps.errors import ConfigError, CorruptWrite, DimensionMismatch, InvalidArgument, LengthMismatch
from ps.shard.ledger import WriteId
from ps.shard.requests import TableIds
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_write
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, changes


@dataclass(frozen=True, eq=False)
class Load(Write):
    """Rows of one table, with unique ids. A restore makes it, for a shard that is not the one that has saved them."""

    NUMBER: ClassVar[int] = 13

    of: TableIds
    rows_NW: Rows
    """Whole rows, [n, dim + state], or their values alone, [n, dim]: the state of rows that exist stays then, and that
    of others begins."""
    scores_N: Scores
    """Importance as of now, with the lots of the rows (`ps.kernels.ranking.score`)."""
    pushes: int = 0
    """How many pushes the optimizer has counted that has trained the rows: from now on the table's has, too."""

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns nothing: it is never repeated."""
        return ()

    @property
    def ids(self) -> Sequence[TableIds]:
        """Returns all of its ids."""
        return [self.of]

    def check(self, tables: Sequence[Resolved]) -> None:
        """Raises DimensionMismatch, LengthMismatch, ConfigError or InvalidArgument if the rows do not fit the table."""
        config, n = tables[0].table.config, len(self.of.ids_N)
        state = config.optimizer.state_width(config.dim)
        if isinstance(config.cold, TensorTrain):
            raise ConfigError(f"table {config.name!r} has tensor-train cores: rows cannot be loaded beside them")
        if self.rows_NW.shape[1] not in (config.dim, config.dim + state):
            raise DimensionMismatch(
                f"table {config.name!r} has dim {config.dim} and {state} numbers of optimizer state a row, the rows to "
                f"load have {self.rows_NW.shape[1]} numbers"
            )
        if len(self.rows_NW) != n or len(self.scores_N) != n:
            raise LengthMismatch(
                f"table {config.name!r}: {len(self.rows_NW)} rows and {len(self.scores_N)} scores for {n} ids"
            )
        if not (np.isfinite(self.scores_N) & (self.scores_N >= 0)).all():
            raise InvalidArgument(f"table {config.name!r}: scores must be finite and not negative")

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that a row is created for each id that has none."""
        return of_write(tables[0].table, self.of, creates=True)

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Creates the rows that are missing."""
        table = tables[0].table
        change = table.writes.plan_load(self.of.ids_N, self.rows_NW, self.scores_N, self.pushes)
        undo.callback(change.undo)
        return changes([(table, change)], ())

    def say(self, out: Packer) -> None:
        """Packs ids, rows and scores."""
        out.text(self.of.table)
        out.ids(self.of.ids_N, self.of.packed)
        out.numbers("IQQ", self.rows_NW.shape[1], self.pushes, self.rows_NW.size)
        out.rows([self.rows_NW])
        out.array(self.scores_N, "<f4")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads ids, rows and scores. Raises CorruptWrite where these are not as many as there are ids."""
        table = data.text()
        ids_N, packed = data.ids()
        width, pushes = data.numbers("IQ")
        numbers, scores_N = data.array("<f4"), data.array("<f4")
        if not width or len(numbers) != width * len(ids_N) or len(scores_N) != len(ids_N):
            raise CorruptWrite(
                f"{len(numbers):,} numbers and {len(scores_N):,} scores of {len(ids_N):,} rows of {width} in a write"
            )
        return cls(TableIds(table, ids_N, packed=packed), numbers.reshape(-1, width), scores_N, pushes)
