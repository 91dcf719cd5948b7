"""A write whose bytes are all there: its rows come up from disk, then it is carried out at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ps.arrays import Ids
from ps.errors import CorruptRow
from ps.runtime.places import ENGINE, Operation
from ps.shard.caller import Caller
from ps.shard.commit import Ready
from ps.shard.core import Core
from ps.shard.requests import TableIds
from ps.shard.steps.rise import Held
from ps.shard.writes.checks import check_unique
from ps.shard.writes.forget import Forget
from ps.shard.writes.remove import Remove
from ps.shard.writes.write import Result, Write


def carry_out(core: Core, write: Write, caller: Caller) -> Operation[Sequence[Result]]:
    """Returns the result of each entry. Serves explicit writes, and writes of any kind that a log has."""
    check_unique(write.ids)
    yield ENGINE
    return (yield from _carried_out(core, write, caller))


def remove(core: Core, write: Remove, caller: Caller) -> Operation[Sequence[Result]]:
    """Removes rows, also those that the disk cannot give back: they cannot be brought up, and are forgotten."""
    check_unique(write.ids)
    yield ENGINE
    while True:
        try:
            return (yield from _carried_out(core, write, caller))
        except CorruptRow as error:
            known = core.commit.known(write.entries)
            if known is not None:  # rows of these ids have come again since
                return known
            lost_N = _forget(core, write.of.table, np.array(error.ids, np.int64))
            write = replace(write, lost_M=np.union1d(write.lost_M, lost_N))


def _forget(core: Core, name: str, ids_N: Ids) -> Ids:
    """Drops those of the rows that the disk cannot give back; returns their ids."""
    with core.disk_health.reading():
        lost_N = core.table(name).store.removals.unreadable(ids_N)
    if len(lost_N):
        core.commit.carry_out((), lambda: Ready(Forget(TableIds(name, lost_N))))
    return lost_N


def _carried_out(core: Core, write: Write, caller: Caller) -> Operation[Sequence[Result]]:
    """Begins and ends on the engine."""
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
