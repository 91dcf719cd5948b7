"""WholeRound: the pushes of all ranks of a round, summed and applied as one.

said = n(u16), then n times: bytes(u64) record          each rank's push, by rank
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ps.errors import CorruptWrite
from ps.shard.ledger import WriteId
from ps.shard.requests import Gradients, TableIds
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_push
from ps.shard.writes.checks import check_rows
from ps.shard.writes.combine import combined
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.push import Push, planned_push, pushed
from ps.shard.writes.write import Ground, Planned, Write, read_record, table_of
from ps.table.push_count import ROUNDS
from ps.table.table import Table


@dataclass(eq=False)
class WholeRound(Write):
    """The parts of a round, by rank, all of the same tables."""

    NUMBER: ClassVar[int] = 2
    PUSHES: ClassVar[int] = 1

    parts: Sequence[Push]
    sums: Sequence[tuple[TableIds, Gradients]] = field(default=(), init=False)
    """All ids of each table, and the sums of their gradients."""

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns the entries of the calls of all ranks."""
        return [part.entry for part in self.parts]

    @property
    def ids(self) -> Sequence[TableIds]:
        """Returns the ids of all ranks; they are known when the write has met the tables."""
        return [ids for ids, _ in self.sums]

    def meet(self, tables: Mapping[str, Table]) -> None:
        """Sums the gradients. Raises the errors of a push, and NonFiniteGradient."""
        for part in self.parts:
            part.meet(tables)
        names = [ids.table for ids in self.parts[0].of]
        self.sums = [_summed(table_of(tables, name), number, self.parts) for number, name in enumerate(names)]

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that rows are created where there is a gradient and the table admits the id."""
        return of_push(tables, [sums for _, sums in self.sums])

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Creates the rows that are missing, and plans the update of all."""
        planned = planned_push(tables, [sums for _, sums in self.sums], ROUNDS, undo)
        return pushed(planned, self.parts, ground, version)

    def say(self, out: Packer) -> None:
        """Packs the pushes."""
        out.numbers("H", len(self.parts))
        for part in self.parts:
            pieces = part.encode()
            out.numbers("Q", sum(map(len, pieces)))
            out.pieces += pieces

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads the pushes."""
        records = [data.raw(data.number("Q")) for _ in range(data.number("H"))]
        parts = [read_record(Unpacker(record, data.wire), {Push.NUMBER: Push}) for record in records]
        pushes = [part for part in parts if isinstance(part, Push)]  # all of them, for mypy
        if len({_tables(part) for part in pushes}) != 1:
            raise CorruptWrite("a round in a write is not made of pushes to the same tables")
        return cls(pushes)


def _summed(table: Table, number: int, parts: Sequence[Push]) -> tuple[TableIds, Gradients]:
    """Returns the ids of the `number`-th table, of all ranks, and the sums of their gradients."""
    ids, gradients = [each.of[number] for each in parts], [each.gradients[number] for each in parts]
    for part_ids, part in zip(ids, gradients, strict=True):  # while it waited, the table may have been created again
        check_rows(table.config, len(part_ids.ids_N) if part.rows_R is None else len(part.rows_R), part.blocks)
    together = combined(ids, gradients, table.config.dim)
    table.cold.check(together[0].ids_N)
    return together


def _tables(part: Push) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(ids.table for ids in part.of), tuple(each.table for each in part.sent)
