"""What a write needs in RAM at once: rows that there are, and those that it creates. Counted where room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ps.shard.requests import Gradients, TableIds
from ps.shard.steps import Resolved
from ps.storage.rows import Slots
from ps.table import Table


class Counted(NamedTuple):
    """Rows of one table."""

    there: int
    """In RAM, or perhaps on disk."""
    created: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.there + self.created


@dataclass(frozen=True)
class Need:
    """Of one table."""

    table: Table
    ids: int
    """So many rows at most."""
    count: Callable[[], Counted]
    """Engine thread: looks up which of the ids have a row, and which would get one."""


def of_push(tables: Sequence[Resolved], gradients: Sequence[Gradients]) -> list[Need]:
    """A push creates rows for those of its ids that have a gradient and are admitted."""

    def counting(table: Table, ids: TableIds, rows_R: Slots | None) -> Callable[[], Counted]:
        def count() -> Counted:
            there_N = table.there(ids.ids_N)
            created_N = table.admitted(ids.ids_N, np.where(there_N, 0, -1), ids.counts_N, rows_R)
            return Counted(int(there_N.sum()), len(created_N))

        return count

    return [
        Need(one.table, len(one.ids.ids_N), counting(one.table, one.ids, part.rows_R))
        for one, part in zip(tables, gradients, strict=True)
    ]


def of_write(table: Table, ids: TableIds, creates: bool) -> list[Need]:
    """An upsert creates a row for each id that has none, other writes create none."""

    def count() -> Counted:
        there = int(table.there(ids.ids_N).sum())
        return Counted(there, len(ids.ids_N) - there if creates else 0)

    return [Need(table, len(ids.ids_N), count)]
