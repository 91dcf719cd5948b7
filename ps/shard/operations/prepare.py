"""Prepares a step: resolves its ids, and brings its rows into RAM, ahead of its pull and its push."""

from __future__ import annotations

from collections.abc import Sequence

from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import Caller
from ps.shard.core import Core
from ps.shard.requests import StepRef, TableIds
from ps.shard.steps.rise import Held
from ps.shard.writes.checks import check_unique


def prepare(core: Core, ref: StepRef, ids: Sequence[TableIds], caller: Caller) -> Operation[int]:
    """Returns the version of the shard. Raises ResourceExhausted when prepared steps hold all that they may."""
    check_unique(ids)
    yield ENGINE
    tables = core.resolve(ids)
    core.pressure.check_steps(tables)
    with Held(tables) as rows:
        raised = yield from core.rise.rise(rows, caller, core.pressure.hinted(tables, rows.let_go))
        for table, n in raised:
            table.counts.rows_on_time += n
        core.steps.add(ref, rows.keep(), core.clock())
    return core.commit.version
