"""Report: adds to the importance of rows that exist.

said = table(text) ids scores(array of f32)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from ps.shard.ledger import WriteId
from ps.shard.requests import WriteResult
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_write
from ps.shard.writes.checks import check_reports
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, RowsWrite, changes, only


@dataclass(frozen=True, eq=False)
class Report(RowsWrite):
    """Scores of rows, finite and not negative. Ids are unique."""

    NUMBER: ClassVar[int] = 6

    scores_N: npt.NDArray[np.float32]

    def check(self, tables: Sequence[Resolved]) -> None:
        """Raises InvalidArgument or LengthMismatch."""
        check_reports(tables[0].table.config, len(self.of.ids_N), self.scores_N)

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that it creates no row."""
        return of_write(tables[0].table, self.of, creates=False)

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Looks up which rows exist."""
        table = tables[0].table
        change = table.writes.plan_report(self.of.ids_N, self.scores_N)
        undo.callback(change.undo)
        return changes([(table, change)], [WriteResult.of(version, change.existed_N)])

    def say(self, out: Packer) -> None:
        """Packs ids and scores."""
        self.say_ids(out)
        out.array(self.scores_N, "<f4")

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads ids and scores."""
        return cls(only(entries), cls.read_ids(data), data.array("<f4"))
