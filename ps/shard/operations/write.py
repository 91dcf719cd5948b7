"""A write whose bytes are all there: its rows come up from disk, then it is carried out at once."""

from __future__ import annotations

from collections.abc import Sequence

from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import Caller
from ps.shard.commit import Ready
from ps.shard.core import Core
from ps.shard.steps.rise import Held
from ps.shard.writes.checks import check_unique
from ps.shard.writes.write import Result, Write


def carry_out(core: Core, write: Write, caller: Caller) -> Operation[Sequence[Result]]:
    """Returns the result of each entry. Serves explicit writes, and writes of any kind that a log has."""
    check_unique(write.ids)
    yield ENGINE
    write.meet(core.tables)
    with Held(core.resolve(write.ids)) as rows:
        needs = write.needs(rows.tables)
        with core.rounds_give_way():
            yield from core.rise.rise(rows, caller, core.pressure.relieved(needs, rows.let_go, last=False))
        try:
            return core.commit.carry_out(write.entries, lambda: Ready(write, rows.tables, let_go=rows.let_go))
        except BaseException:
            core.aftermath.run("letting go of rows", rows.let_go)
            core.maintain([resolved.table for resolved in rows.tables])
            raise
