"""Push: gradients of one call, for one table or several.

    said = ids_digest(u64) member(u8) [group(text) number(u64) rank(u16) ranks(u16)] tables     (bodies.py)
    more = pulled_version(u64) n(u32), then n times: table(text) ids counted(u8) [counts(array of u32)]
           bagged(u8) [starts(array of i64) positions(array of i32)]

The ids are no part of what was said: a push names them by a step, or sends them, and both are the same push. What was
said has a digest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from ps.arrays import Slots
from ps.errors import CorruptWrite, DimensionMismatch
from ps.round import Round
from ps.shard.ledger import WriteId
from ps.shard.reads.pooled import spread
from ps.shard.requests import Bags, Gradients, PushResult, TableIds
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.needs import Need, of_push
from ps.shard.writes import bodies
from ps.shard.writes.checks import check_gradients
from ps.shard.writes.grammar import Packer, Piece, Unpacker
from ps.shard.writes.write import Ground, Planned, Write, changes, only, table_of
from ps.table.change import Change
from ps.table.table import Table


@dataclass(eq=False)
class Push(Write):
    """Finite gradients. Ids are unique in each table."""

    NUMBER: ClassVar[int] = 1
    PUSHES: ClassVar[int] = 1

    entry: WriteId
    of: Sequence[TableIds]
    sent: Sequence[Gradients]
    """The gradients of rows and of bags, as the call brought them."""
    pulled_version: int = 0
    ids_digest: int = 0
    place: Round | None = None
    """The push's place in a round; None: it is applied by itself."""
    gradients: Sequence[Gradients] = ()
    """The gradients of rows, among them what the bags' gradients give to rows. Empty until the caller, or `meet`, has
    computed them."""

    @property
    def entries(self) -> Sequence[WriteId]:
        """Returns the entry of one call."""
        return [self.entry]

    @property
    def ids(self) -> Sequence[TableIds]:
        """Returns the ids of all tables."""
        return self.of

    def meet(self, tables: Mapping[str, Table]) -> None:
        """Gives gradients of bags to their rows, if that has not been done."""
        if len(self.gradients) < len(self.sent):
            for part in self.sent:
                if part.bags is not None and part.bags.dim != table_of(tables, part.table).config.dim:
                    raise DimensionMismatch(f"table {part.table!r}: gradients of bags have dim {part.bags.dim}")
            self.gradients = spread(self.of, self.sent)

    def check(self, tables: Sequence[Resolved]) -> None:
        """Raises LengthMismatch, DimensionMismatch or StepNotFound if the gradients do not fit the tables."""
        check_gradients(tables, self.gradients)

    def needs(self, tables: Sequence[Resolved]) -> list[Need]:
        """Says that rows are created where there is a gradient and the table admits the id."""
        return of_push(tables, self.gradients)

    def plan(self, ground: Ground, tables: Sequence[Resolved], version: int, undo: ExitStack) -> Planned:
        """Creates the rows that are missing, and plans the update of all."""
        planned = planned_push(tables, self.gradients, self.entry.worker_id, undo)
        return pushed(planned, [self], ground, version)

    def say(self, out: Packer) -> None:
        """Packs the gradients, and which ids they are of."""
        say_head(self.ids_digest, self.place, out)
        bodies.pack(self.sent, out)

    def tell(self, out: Packer) -> None:
        """Packs the ids."""
        out.numbers("QI", self.pulled_version, len(self.of))
        for part in self.of:
            _pack_ids(part, out)

    @classmethod
    def read(cls, entries: Sequence[WriteId], data: Unpacker) -> Self:
        """Reads ids and gradients."""
        pulled_version, tables = data.numbers("QI")
        of = [_read_ids(data) for _ in range(tables)]
        ids_digest, place = _read_head(data)
        sent = bodies.read(data)
        return cls(only(entries), of, sent, pulled_version, ids_digest, place)


def say(ids_digest: int, place: Round | None, heads: Sequence[bodies.Head], update: Callable[[Piece], object]) -> None:
    """Passes to `update` all bytes that `Push.digest` is taken over, up to the bodies, which follow as they come."""
    out = Packer()
    out.numbers("B", Push.NUMBER)
    say_head(ids_digest, place, out)
    bodies.pack_heads(heads, out)
    for piece in out.pieces:
        update(piece)


def say_head(ids_digest: int, place: Round | None, out: Packer) -> None:
    """Packs what a push says before its gradients."""
    out.numbers("QB", ids_digest, int(place is not None))
    if place is not None:
        out.text(place.group)
        out.numbers("QHH", place.number, place.rank, place.ranks)


def planned_push(
    tables: Sequence[Resolved], gradients: Sequence[Gradients], worker: int, undo: ExitStack
) -> list[tuple[Table, Change]]:
    """Creates a row for each id that has a gradient and may have a row; returns the changes of the tables."""
    for resolved, part in zip(tables, gradients, strict=True):
        created_N = resolved.create_admitted(part.rows_R)
        undo.callback(_undo_create, resolved, created_N)
    return [
        (resolved.table, _planned(resolved, part, worker)) for resolved, part in zip(tables, gradients, strict=True)
    ]


def pushed(planned: Sequence[tuple[Table, Change]], parts: Sequence[Push], ground: Ground, version: int) -> Planned:
    """Puts together what makes this version, with the answers of its parts."""
    stale = [ground.staleness.of(version, part.pulled_version) for part in parts]
    known = [each for each, part in zip(stale, parts, strict=True) if part.pulled_version]
    return replace(changes(planned, [PushResult(version, each) for each in stale]), staleness=known)


def _undo_create(resolved: Resolved, created_N: Slots) -> None:
    resolved.table.reserve.undo_create(resolved.slots(), created_N)


def _planned(resolved: Resolved, given: Gradients, worker: int) -> Change:
    table, ids = resolved.table, resolved.ids
    slots_N, blocks, positives_N = resolved.slots(), given.blocks, given.positives_N
    return table.writes.plan_push(
        ids.ids_N, slots_N, ids.counts_N, blocks, positives_N, given.rows_R, worker, given.pushes
    )


def _read_head(data: Unpacker) -> tuple[int, Round | None]:
    ids_digest, member = data.numbers("QB")
    if not member:
        return ids_digest, None
    group = data.text()
    number, rank, ranks = data.numbers("QHH")
    return ids_digest, Round(group, number, rank, ranks)


def _pack_ids(part: TableIds, out: Packer) -> None:
    out.text(part.table)
    out.ids(part.ids_N, part.packed)
    out.numbers("B", int(part.counts_N is not None))
    if part.counts_N is not None:
        out.array(part.counts_N, "<u4")
    out.numbers("B", int(part.bags is not None))
    if part.bags is not None:
        out.array(part.bags.starts_K, "<i8")
        out.array(part.bags.positions_P, "<i4")


def _read_ids(data: Unpacker) -> TableIds:
    table = data.text()
    ids_N, packed = data.ids()
    counts_N = data.array("<u4") if data.number("B") else None
    bags = _checked(Bags(data.array("<i8"), data.array("<i4")), len(ids_N)) if data.number("B") else None
    return TableIds(table, ids_N, counts_N, bags, packed)


def _checked(bags: Bags, n_ids: int) -> Bags:
    starts_K, positions_P = bags.starts_K, bags.positions_P
    whole = len(starts_K) and starts_K[0] == 0 and starts_K[-1] == len(positions_P) and (np.diff(starts_K) > 0).all()
    if not whole or (len(positions_P) and not (positions_P.min() >= 0 and positions_P.max() < n_ids)):
        raise CorruptWrite(f"bags in a write do not cover their {len(positions_P):,} positions among {n_ids:,} ids")
    return bags
