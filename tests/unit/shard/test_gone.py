"""Nobody works for a caller that has gone: what waits is not begun, what has begun stops at its next chunk, and a write
that has begun to apply is finished."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.arrays import Rows
from ps.shard import Shard, StepRef
from ps.shard.caller import Caller
from ps.shard.reads.stream import plain
from ps.shard.requests import Bags, Cut, TableIds, Wanted
from ps.storage.disk.tier import DiskTier
from ps.table.table import Table
from ps.table.write import Writes
from tests.loopback.tables import block, summing
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, push_ids, read
from tests.waiting import LIMIT_S, busy_engine, until

WIDE, MANY = 65_536, 40


@pytest.fixture
def shard() -> Iterator[Shard]:
    running = Shard(0)
    running.create_table(summing())
    running.create_table(summing("w", WIDE))
    push_ids(running, "t", [1], [[1] * DIM])
    yield running
    running.close()


Call = Callable[[Shard, Caller], object]


def pushed(shard: Shard, caller: Caller) -> object:
    with shard.look_ahead([ids_of("t", [1])], caller) as ahead:
        return shard.push(a_write(), ahead, [grads_of("t", [[1] * DIM])])


IDS, ROWS = ids_of("t", [1]), [block([5])]
CALLS: dict[str, Call] = {
    "prepare": lambda shard, caller: shard.prepare(StepRef(1, 1), [IDS], caller),
    "pull": lambda shard, caller: shard.pull([IDS], caller=caller).head(),
    "push": pushed,
    "upsert": lambda shard, caller: shard.upsert(a_write(), IDS, ROWS, caller),
    "assign": lambda shard, caller: shard.assign(a_write(), IDS, ROWS, caller),
    "remove": lambda shard, caller: shard.remove(a_write(), IDS, None, caller),
    "report": lambda shard, caller: shard.report_importance(a_write(), IDS, np.ones(1, np.float32), caller),
    "export": lambda shard, caller: shard.export_page("t", 0, 10, caller=caller),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_what_waits_for_the_engine_is_not_begun(shard: Shard, call: Call) -> None:
    caller, before = Caller(), shard.stats()["tables"]
    with ThreadPoolExecutor(1) as pool:
        with busy_engine(shard):
            waits = pool.submit(call, shard, caller)
            until(lambda: shard.engine.queue_length > 0)
            caller.leave()
        assert isinstance(waits.exception(LIMIT_S), ps.Unavailable)
    assert shard.stats()["tables"] == before
    assert (shard.commit.pushes, shard.stats()["steps_held"], shard.budget.bodies.used) == (1, 0, 0)
    assert read(shard, "t", [1]).tolist() == [[-1.0] * DIM]


def test_who_waits_for_rows_hears_of_it_while_the_engine_is_busy(shard: Shard) -> None:
    caller = Caller()
    with busy_engine(shard), ThreadPoolExecutor(1) as pool:
        waits = pool.submit(shard.pull([IDS], caller=caller).head)
        caller.leave()
        assert isinstance(waits.exception(LIMIT_S), ps.Unavailable)


def test_a_pull_stops_at_its_next_chunk(shard: Shard) -> None:
    caller, filled = Caller(), []

    def allocate(cuts: Sequence[Cut]) -> tuple[Any, Rows]:
        filled.append(cuts)
        if len(filled) == 3:
            caller.leave()
        return plain(cuts)

    shard.pull([ids_of("w", range(MANY))], Wanted(), allocate, caller)
    shard.engine.run(lambda: None)
    assert len(filled) == 3
    assert shard.budget.bodies.used == 0


def test_sums_of_bags_stop_at_the_next_rows(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, looked_up = Caller(), []
    plain_lookup = Table.lookup

    def lookup(table: Table, ids_N: Any, *rest: Any) -> Any:
        looked_up.append(len(ids_N))
        caller.leave()
        return plain_lookup(table, ids_N, *rest)

    monkeypatch.setattr(Table, "lookup", lookup)
    bags = Bags(np.array([0, MANY], np.int64), np.arange(MANY, dtype=np.int64))
    shard.pull([TableIds("w", np.arange(MANY), None, bags)], caller=caller)
    shard.engine.run(lambda: None)
    assert len(looked_up) == 1
    assert sum(looked_up) < MANY
    assert shard.budget.bodies.used == 0


@pytest.mark.parametrize("what", ["prepare", "pull", "push"])
def test_rows_on_disk_are_read_piece_by_piece_and_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    config = ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20})
    shard = Shard(0, config)
    try:
        shard.create_table(summing().model_copy(update={"swap_fraction": 0.9}))
        ids = range(5000)
        push_ids(shard, "t", ids, block(range(5000)))
        tier = shard.tables["t"].store.below.tier
        until(lambda: len(tier) > 4000)
        caller, pieces, plain_piece = Caller(), [], DiskTier._read_piece

        def read_piece(tier: DiskTier, ids_N: Any) -> Any:
            pieces.append(len(ids_N))
            caller.leave()
            return plain_piece(tier, ids_N)

        monkeypatch.setattr(DiskTier, "_read_piece", read_piece)
        target = [ids_of("t", ids)]
        if what == "prepare":
            with pytest.raises(ps.Unavailable):
                shard.prepare(StepRef(1, 1), target, caller)
        elif what == "pull":
            with pytest.raises(ps.Unavailable):
                shard.pull(target, caller=caller).head()
        else:
            with shard.look_ahead(target, caller):
                pass
        assert sum(pieces) < 2500
        until(lambda: shard.budget.bodies.used == 0)
        until(lambda: not shard.engine.run(lambda: shard.tables["t"].store._fetches._open))
        assert shard.commit.pushes == 1
    finally:
        shard.close()


def test_a_write_that_has_begun_to_apply_is_finished(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    caller, plan = Caller(), Writes.plan_push

    def leaves_then_plans(*arguments: Any) -> Any:
        caller.leave()
        return plan(*arguments)

    monkeypatch.setattr(Writes, "plan_push", leaves_then_plans)
    pushed(shard, caller)
    assert read(shard, "t", [1]).tolist() == [[-2.0] * DIM]


def test_what_is_to_be_done_when_a_caller_leaves_is_done_once_whenever_it_is_said() -> None:
    caller, done = Caller(), []
    caller.on_leave(lambda: done.append("before"))
    threads = [threading.Thread(target=caller.leave) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    caller.on_leave(lambda: done.append("after"))
    assert done == ["before", "after"]
    with pytest.raises(ps.Unavailable, match="gone"):
        caller.check()
