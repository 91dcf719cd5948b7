"""The base of all kinds of write. A write is a value: it says what changes, and has canonical bytes.

A kind is one file: what the write says, its bytes, and its plan, which reserves all that carrying it out needs.
`registry.py` lists the kinds; `ps.shard.commit` carries them out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Self

import xxhash

from ps.config import TableConfig
from ps.errors import CorruptWrite, TableNotFound
from ps.quoting import shown, some_of
from ps.shard.ledger import WriteId
from ps.shard.requests import PushResult, TableIds, WriteResult
from ps.shard.staleness import Staleness
from ps.shard.steps.steps import Resolved, Steps
from ps.shard.upkeep.needs import Need
from ps.shard.writes.grammar import FORMAT, Packer, Piece, Unpacker
from ps.table.change import Change
from ps.table.cold.cores import ColdCores
from ps.table.table import Table

Result = PushResult | WriteResult
Step = tuple[str, Callable[[], object]]
"""A thing to do, and its name in errors."""


@dataclass(frozen=True)
class Ground:
    """The parts of a shard that carrying out a write needs."""

    tables: dict[str, Table]
    steps: Steps
    staleness: Staleness
    build: Callable[[TableConfig, ColdCores | None], Table]
    """Makes a table that is not visible yet. It owns the cores that it is given, also if it fails."""
    discard: Callable[[Table], None]
    """Frees what a table holds in RAM and on disk."""


@dataclass(frozen=True)
class Planned:
    """A write for which everything is reserved. It must be the next write of the shard."""

    make: Sequence[Step]
    """Changes the rows; may not fail."""
    results: Sequence[Result] = ()
    """The answer of each entry."""
    settle: Sequence[Step] = ()
    """The work that follows the write. Each part is tried, even if the one before failed."""
    written: Sequence[Table] = ()
    """The tables whose rows it changes."""
    staleness: Sequence[int] = ()
    """The staleness of each push whose pull is known."""
    gone: str = ""
    """The name, in errors, of a table that is no more: what has failed about it is not tried again."""


class Write(ABC):
    """One write of a shard's history."""

    NUMBER: ClassVar[int]
    """The first byte of its record."""
    PUSHES: ClassVar[int] = 0
    """How many pushes of the shard it counts as."""

    @property
    @abstractmethod
    def entries(self) -> Sequence[WriteId]:
        """The ledger's key of each call that it answers; empty if it is never repeated."""

    @property
    def ids(self) -> Sequence[TableIds]:
        """The ids whose rows must be in RAM before it is carried out."""
        return ()

    def meet(self, tables: Mapping[str, Table]) -> None:  # noqa: B027  most kinds do nothing here
        """Computes what depends on the tables, before its `ids` are asked for."""

    def check(self, tables: Sequence[Resolved]) -> None:  # noqa: B027  most kinds do nothing here
        """Raises what is wrong with the write, before rows make room for it."""

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says how many rows the write needs in RAM."""
        return []

    @abstractmethod
    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Reserves what the write needs, and changes nothing that a reader could see. undo: collects the calls that
        take it back. version: the version that the write will make."""

    @abstractmethod
    def say(self, out: Packer) -> None:
        """Packs what the request said."""

    def tell(self, out: Packer) -> None:  # noqa: B027  most kinds do nothing here
        """Packs what a replay must know beside the request."""

    @classmethod
    @abstractmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads what `tell` and then `say` have packed. Raises CorruptWrite, or the errors of a wrong write."""

    def encode(self) -> list[Piece]:
        """Returns the record of the write in pieces; no array is copied."""
        out = Packer()
        out.numbers("BBH", self.NUMBER, FORMAT, len(self.entries))
        for entry in self.entries:
            out.numbers("QQ", entry.worker_id, entry.sequence)
            out.digest(entry.digest)
        self.tell(out)
        self.say(out)
        return out.pieces

    def digest(self) -> int:
        """Returns the xxh3-128 of what the request said, and of which kind it is."""
        out = Packer()
        out.numbers("B", self.NUMBER)
        self.say(out)
        digest = xxhash.xxh3_128()
        for piece in out.pieces:
            digest.update(piece)
        return int(digest.intdigest())


@dataclass(frozen=True, eq=False)
class RowsWrite(Write):
    """An explicit write of the rows of one table."""

    entry: WriteId
    of: TableIds

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns the entry of one call."""
        return [self.entry]

    @property
    def ids(self) -> Sequence[TableIds]:
        """Returns all of its ids."""
        return [self.of]

    def say_ids(self, out: Packer) -> None:
        """Packs the table and its ids, without counts."""
        out.text(self.of.table)
        out.ids(self.of.ids_N, self.of.packed)

    @staticmethod
    def read_ids(data: Unpacker) -> TableIds:
        """Reads the table and its ids."""
        table = data.text()
        ids_N, packed = data.ids()
        return TableIds(table, ids_N, packed=packed)


def table_of(tables: Mapping[str, Table], name: str) -> Table:
    """Returns the table of that name; raises TableNotFound."""
    try:
        return tables[name]
    except KeyError:
        raise TableNotFound(f"no table {shown(name)} (there are: {some_of(tables)}); create_table makes one") from None


def read_record(data: Unpacker, kinds: Mapping[int, type[Write]]) -> Write:
    """Reads the record of a write of one of these kinds. Raises CorruptWrite, or the errors of a wrong write."""
    number, form, count = data.numbers("BBH")
    if number not in kinds:
        raise CorruptWrite(f"a write of kind {number}: expected one of {sorted(kinds)}")
    if form != FORMAT:
        raise CorruptWrite(f"a write in format {form}: this version reads {FORMAT}")
    entries = [WriteId(data.number("Q"), data.number("Q"), data.digest()) for _ in range(count)]
    write = kinds[number].read(entries, data)
    data.end()
    if list(write.entries) != entries:
        raise CorruptWrite(f"a write has {len(entries)} entries that are not those of its calls")
    return write


def only(entries: Sequence[WriteId]) -> WriteId:
    """Returns the one entry; raises CorruptWrite if there is another number of entries."""
    if len(entries) != 1:
        raise CorruptWrite(f"a write of one call has {len(entries)} entries")
    return entries[0]


def changes(planned: Sequence[tuple[Table, Change]], results: Sequence[Result]) -> Planned:
    """Puts the changes of tables together to those of a write."""
    make = [(f"table {table.config.name!r}", change.make) for table, change in planned]
    settle = [
        (f"table {table.config.name!r}: {name}", part)
        for table, change in planned
        for name, part in change.settle.items()
    ]
    return Planned(make, results, settle, [table for table, _ in planned])
