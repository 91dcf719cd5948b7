"""Pulls: gathers rows in the order of the ids. A pull changes nothing: rows on disk are read for it and stay there."""

from __future__ import annotations

from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import Caller
from ps.shard.core import Core
from ps.shard.reads.stream import RowStream
from ps.shard.requests import StepRef, Target, Wanted
from ps.shard.steps.rise import Held
from ps.shard.writes.checks import check_tables


def pull(core: Core, target: Target, wanted: Wanted, stream: RowStream, caller: Caller, held: int) -> Operation[None]:
    """Fills the stream, which also gets every error. held: bytes of the budget that the caller holds for this pull."""
    if not isinstance(target, StepRef):
        check_tables(target)
    yield ENGINE
    with stream.failing():
        tables = core.resolve(target)
        stream.hold(max(core.pull_bytes(tables) - held, 0))
        with Held(tables, moving=core.disk is not None) as rows:
            yield from core.rise.beside(rows, caller)
            core.commit.check_well()  # a write may have failed meanwhile
            stream.fill(core.commit.version, tables, wanted)
