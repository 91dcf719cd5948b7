"""An explicit write: its rows come up from disk, then it is applied at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import Caller
from ps.shard.core import Core
from ps.shard.ledger import WriteId
from ps.shard.requests import TableIds, WriteResult
from ps.shard.steps.rise import Held
from ps.shard.upkeep.needs import of_write
from ps.shard.writes.checks import check_unique
from ps.table.change import Change
from ps.table.table import Table


def write(
    core: Core,
    write: WriteId,
    ids: TableIds,
    check: Callable[[Table], None],
    plan: Callable[[Table], Change],
    caller: Caller,
    creates: bool = False,
) -> Operation[WriteResult]:
    """`check` raises what is wrong with the write, before rows make room for it. `creates`: a row for each id that has
    none."""
    check_unique([ids])
    yield ENGINE
    with Held(core.resolve([ids])) as rows:
        needs = of_write(rows.tables[0].table, ids, creates)
        with core.rounds_give_way():
            yield from core.rise.rise(rows, caller, core.pressure.relieved(needs, rows.let_go, last=False))
        known = core.commit.known(write)
        if known is not None:
            return cast(WriteResult, known)  # the digest tells writes of different kinds apart
        try:
            return core.commit.write(write, ids, rows, check, plan, creates)
        finally:
            core.aftermath.run("letting go of rows", rows.let_go)
            core.maintain([resolved.table for resolved in rows.tables])
