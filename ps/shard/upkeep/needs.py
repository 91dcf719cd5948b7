"""Counts the rows that a write needs in RAM at once, existing ones and those that it creates, when room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ps.arrays import Slots
from ps.shard.requests import Gradients, TableIds
from ps.shard.steps.steps import Resolved
from ps.table.table import Table


class Counted(NamedTuple):
    """The rows that a write needs in one table."""

    there: int
    """Rows that are in RAM, or perhaps on disk."""
    created: int
    others: int
    """Rows that the write does not name and that may not leave RAM meanwhile, or room that is reserved for such
    rows."""

    @property
    def total(self) -> int:
        """All rows of the write."""
        return self.there + self.created

    @property
    def in_ram(self) -> int:
        """Rows that the table must be able to have in RAM for the write to go through."""
        return self.total + self.others


@dataclass(frozen=True)
class Need:
    """The room that a write needs in one table."""

    table: Table
    ids: int
    """The most rows that the write may need."""
    count: Callable[[], Counted]
    """Looks up which of the ids have a row, and which would get one. Runs on the engine thread."""


def of_push(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> list[Need]:
    """Returns the needs of a push, which creates rows for those of its ids that have a gradient and are admitted."""

    def counting(table: Table, ids: TableIds, rows_R: Slots | None) -> Callable[[], Counted]:
        def count() -> Counted:
            there_N = table.there(ids.ids_N)
            created_N = table.reserve.admitted(ids.ids_N, np.where(there_N, 0, -1), ids.counts_N, rows_R)
            named = table.staying(ids.ids_N) + (len(created_N) if table.room.reserved else 0)  # those lifted stay too
            return Counted(int(there_N.sum()), len(created_N), max(table.room.reserved - named, 0))

        return count

    return [
        Need(one.table, len(one.ids.ids_N), counting(one.table, one.ids, part.rows_R))
        for one, part in zip(tables, gradients, strict=True)
    ]


def of_write(table: Table, ids: TableIds, creates: bool) -> list[Need]:
    """Returns the needs of another write: an upsert creates a row for each id that has none, other writes create
    none."""

    def count() -> Counted:
        there = int(table.there(ids.ids_N).sum())
        others = max(table.room.reserved - table.staying(ids.ids_N), 0)
        return Counted(there, len(ids.ids_N) - there if creates else 0, others)

    return [Need(table, len(ids.ids_N), count)]
