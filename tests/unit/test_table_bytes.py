"""What a table takes beside its rows is on the list of `ps.table.beside`, before it is taken: nothing is missing there.

Weighed by tracemalloc, which knows of every array and object; arrays by slot are mapped and have an account of their
own.
"""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.errors import ResourceExhausted
from ps.shard import Shard
from ps.table.beside import fixed_bytes
from ps.table.push_count import PushCount
from ps.table.table import Table
from tests.unit.shard.helpers import new_table

SMALL_BYTES = 96 << 10
"""Of a table's objects, and its decay table."""
TABLES: dict[str, dict[str, Any]] = {
    "plain": {},
    "fp16": {"cold": ps.Fp16(), "half_life_pushes": 64},
    "threshold": {"admission": ps.CountThreshold(min_count=2, cells=1 << 18)},
    "lots": {"admission": ps.Probability(p=0.5)},
    "expiring": {"expire_after_pushes": 1000},
    "bounded": {"max_rows_per_shard": 10_000},
    "adam": {"optimizer": ps.Adam()},
    "tt": {"cold": ps.TensorTrain(rows=200_000, ranks=8, hot_rows=100), "initializer": ps.Normal()},
}


def trained(config: ps.TableConfig) -> Table:
    table = Table(config)
    for start in range(0, 5000, 500):
        ids_N = np.arange(start, start + 500)
        slots_N = table.find(ids_N)
        table.reserve.create_admitted(ids_N, slots_N, None)
        table.writes.plan_push(ids_N, slots_N, None, [np.zeros((500, 16), np.float32)]).carry_out()
    return table


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_takes_what_is_listed_and_nothing_more(kind: str) -> None:
    config = ps.TableConfig(**{"name": "t", "dim": 16, "optimizer": ps.SGD(), **TABLES[kind]})
    trained(config).close()  # kernels are there, and caches full
    listed = fixed_bytes(config, False)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        table = trained(config)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= sum(listed.values()) + SMALL_BYTES
    assert taken >= sum(listed.values()) - listed["cores"] * 2 // 3, "charged for more, beside buffers to come"
    table.close()


@pytest.mark.parametrize("has_disk", [True, False])
def test_what_does_not_fit_beside_rows_is_refused_before_it_is_taken(has_disk: bool, tmp_path: Path) -> None:
    shard = Shard(0, ps.ServiceConfig(memory={"ram_bytes": 256 << 20}, disk={"path": tmp_path if has_disk else None}))
    left = shard.budget.for_slots(0)
    tracemalloc.start()
    try:
        with pytest.raises(ResourceExhausted, match=r"[\d,]+ bytes for the sketch of table t.* fewer cells") as refused:
            new_table(shard, admission=ps.CountThreshold(min_count=2, cells=1 << 26))
        assert refused.value.retry_after_s is None
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert shard.budget.for_slots(0) == left
    new_table(shard, admission=ps.CountThreshold(min_count=2, cells=1 << 20))
    assert shard.watch.memory_usage() is not None
    assert shard.tables["t"].memory_usage()["hot"]["admission"] == 1 << 23
    shard.drop_table("t")
    assert shard.budget.for_slots(0) == left
    shard.close()


def test_what_is_remembered_of_workers_is_counted_and_taken_from_the_rows() -> None:
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        count = PushCount()
        for worker in range(5000):
            count.count((worker + 1) << 40, 1 << 30)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert count.nbytes == pytest.approx(taken, rel=0.3)
