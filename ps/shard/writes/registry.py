"""The kinds of writes, and the way back from bytes to a write."""

from __future__ import annotations

from ps.errors import CorruptWrite, PsError
from ps.shard.writes.assign import Assign
from ps.shard.writes.change import ChangeTable
from ps.shard.writes.create import CreateTable
from ps.shard.writes.drop import DropTable
from ps.shard.writes.evict import Evict
from ps.shard.writes.evict_rows import EvictRows
from ps.shard.writes.forget import Forget
from ps.shard.writes.grammar import PLAIN, Piece, Unpacker, Wire
from ps.shard.writes.load import Load
from ps.shard.writes.push import Push
from ps.shard.writes.remove import Remove
from ps.shard.writes.report import Report
from ps.shard.writes.upsert import Upsert
from ps.shard.writes.whole_round import WholeRound
from ps.shard.writes.write import Write, read_record

_ALL: tuple[type[Write], ...] = (
    Push,
    WholeRound,
    Upsert,
    Assign,
    Remove,
    Report,
    Forget,
    CreateTable,
    DropTable,
    ChangeTable,
    Evict,
    EvictRows,
    Load,
)


def _numbered(kinds: tuple[type[Write], ...]) -> dict[int, type[Write]]:
    found: dict[int, type[Write]] = {}
    for kind in kinds:
        other = found.setdefault(kind.NUMBER, kind)
        if other is not kind or not 0 < kind.NUMBER < 256:
            raise TypeError(f"{kind.__name__} has number {kind.NUMBER}: each kind of write has its own, from 1 to 255")
        if missing := kind.__abstractmethods__:
            raise TypeError(f"{kind.__name__} has no {sorted(missing)}: it is not a kind of write yet")
    return found


KINDS = _numbered(_ALL)
"""Each kind by the first byte of its records. A number is never used again."""


def decode(data: Piece, wire: Wire = PLAIN) -> Write:
    """Returns the write that these bytes are the record of. Raises CorruptWrite, whatever they are."""
    try:
        return read_record(Unpacker(data, wire), KINDS)
    except CorruptWrite:
        raise
    except (PsError, ValueError) as error:
        raise CorruptWrite(f"a write is damaged: {type(error).__name__}: {error}") from error
