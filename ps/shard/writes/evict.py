"""Evict: the least important rows of some tables go. The shard does it by itself, where there are more than it has room
for.

said = count(u32) { table(text) most(u64) }
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

from ps.shard.ledger import WriteId
from ps.shard.steps.steps import Resolved
from ps.shard.writes.grammar import Packer, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, changes, table_of


@dataclass(frozen=True, eq=False)
class Evict(Write):
    """Drops rows of these tables, those at the low end of the ranking, so that about `most` of each stay at most.

    How many there is room for is decided by settings of the shard, which may change between two starts. So the decision
    is in the log, and a replay does not take it again.
    """

    NUMBER: ClassVar[int] = 11

    most: Mapping[str, int]

    @property
    def entries(self) -> Sequence[WriteId]:
        """Nobody asked for it."""
        return ()

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Reserves nothing: dropping rows by their rank needs no look at them."""
        found = [(table_of(ground.tables, name), most) for name, most in self.most.items()]
        return changes([(table, table.clock.plan_eviction(most)) for table, most in found], ())

    def say(self, out: Packer) -> None:
        """Packs each table and how many of its rows may stay."""
        out.numbers("I", len(self.most))
        for name, most in self.most.items():
            out.text(name)
            out.numbers("Q", most)

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads each table and how many of its rows may stay."""
        return cls({data.text(): data.number("Q") for _ in range(data.number("I"))})
