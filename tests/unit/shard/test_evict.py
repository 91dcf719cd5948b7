"""What is evicted for want of room or by age, and that nothing of it is left: values, slots, bytes on disk, claims."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.shard import Shard, StepRef
from ps.storage.disk.codec import PARTITIONS
from tests.unit.shard.helpers import (
    DIM,
    a_write,
    everything,
    ids_of,
    new_table,
    none_held,
    push,
    push_ids,
    read,
    read_target,
)
from tests.unit.shard.helpers import grads_of as grads
from tests.waiting import until


@contextmanager
def a_shard(**settings: object) -> Iterator[Shard]:
    shard = Shard(0, ps.ServiceConfig(**settings))
    yield shard
    shard.close()


@pytest.fixture
def shard() -> Iterator[Shard]:
    with a_shard() as running:
        yield running


def push_ones(shard: Shard, ids: Sequence[int], table: str = "t") -> None:
    """Row i is -1 times its pushes since it was last created."""
    push_ids(shard, table, ids, np.ones((len(ids), DIM)))


def held(shard: Shard, table: str = "t") -> list[int]:
    return everything(shard, table)[0].tolist()


def test_the_rows_used_most_stay(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=50)
    for _ in range(3):
        push_ones(shard, range(30))
    push_ones(shard, range(100, 130))
    left = held(shard)
    assert left[:30] == list(range(30)), "used three times"
    assert 10 < len(left[30:]) <= 20
    table = shard.tables["t"]
    assert table.counts.rows_evicted == 60 - len(left) == 60 - len(table)
    assert (read(shard, "t", range(100, 130))[:, 0] == [-1 if i in left else 0 for i in range(100, 130)]).all()


def test_of_rows_alike_just_some_go(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=1000)
    push_ones(shard, range(1500))
    assert 850 <= len(held(shard)) <= 1000


def test_a_bound_below_one_batch_holds(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=1)
    for start in range(0, 50, 5):
        push_ones(shard, range(start, start + 5))
        assert len(held(shard)) <= 1
    shard.upsert(a_write(), ids_of("t", [7, 8, 9]), [np.ones((3, DIM), np.float32)])
    assert len(held(shard)) <= 1


def test_rows_of_an_upsert_count_as_used_once(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=100)
    shard.upsert(a_write(), ids_of("t", range(80)), [np.ones((80, DIM), np.float32)])
    push_ones(shard, range(200, 240))
    left = np.array(held(shard))
    assert 40 < (left < 80).sum() < 80


def test_a_row_that_comes_again_begins_anew(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=20, optimizer=ps.Adagrad(lr=1.0))
    push_ones(shard, range(20))
    push_ones(shard, range(100, 118))
    push_ones(shard, range(100, 118))
    gone = next(i for i in range(20) if i not in held(shard))
    while gone not in held(shard):
        push_ones(shard, [gone])
    rows_NW = everything(shard, "t")[1]
    np.testing.assert_allclose(rows_NW[held(shard).index(gone)], [-1] * DIM + [1] * DIM)


def test_a_step_prepared_before_sees_what_was_evicted_as_gone(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=20)
    push_ones(shard, range(20))
    ref, ids = StepRef(1, 1), list(range(20))
    shard.prepare(ref, [ids_of("t", ids)])
    for _ in range(2):
        push_ones(shard, range(100, 118))
    left = set(held(shard))
    assert len(left & set(ids)) < 20
    assert read_target(shard, ref)[0][:, 0].tolist() == [-1.0 if i in left else 0.0 for i in ids]
    push(shard, ref, grads("t", np.ones((20, DIM))))
    values = read(shard, "t", ids)[:, 0]
    for id_, value in zip(ids, values.tolist(), strict=True):
        assert value in ((-2.0, 0.0) if id_ in left else (-1.0, 0.0))
    assert none_held(shard.tables["t"].store), "pinned for good"


def test_slots_of_evicted_rows_are_used_again(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=1000)
    for start in range(0, 20_000, 100):
        push_ones(shard, range(start, start + 100))
    assert shard.tables["t"].ram.slots_end <= 1200


def test_rows_left_alone_expire(shard: Shard) -> None:
    new_table(shard, expire_after_pushes=32)
    push_ones(shard, [1, 2])
    alive = []
    for _ in range(40):
        push_ones(shard, [2])
        alive.append(held(shard))
    ages = [i + 1 for i, ids in enumerate(alive) if ids == [2]]
    assert all(2 in ids for ids in alive)
    assert ages[0] in (32, 33), "pushes until row 1 had gone"
    assert shard.tables["t"].counts.rows_expired == 1
    assert read(shard, "t", [1, 2])[:, 0].tolist() == [0, -41]


def test_what_is_evicted_leaves_the_disk_and_the_filter(tmp_path: Path) -> None:
    with a_shard(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}) as shard:
        new_table(shard, max_rows_per_shard=2000, swap_fraction=0.9)
        for start in range(0, 6000, 200):
            push_ones(shard, range(start, start + 200))
        table = shard.tables["t"]
        evicted = table.counts.rows_evicted
        assert evicted == 6000 - len(table) > 0
        store = table.store

        def purged() -> bool:
            push_ones(shard, [5999])
            return shard.engine.run(lambda: store.below.next_slice(store.dropped.cuts) is None) and not store._writing

        until(purged)
        in_ram = set(shard.engine.run(lambda: table.ram.ids_S[: table.ram.slots_end].tolist()))
        on_disk = {int(id_) for rows in store.below.tier.partitions(0, PARTITIONS) for id_ in rows.ids_N}
        alive = set(held(shard))
        assert on_disk <= alive | in_ram
        assert len(store.below.tier) == len(on_disk)
        gone_N = np.array(sorted(set(range(6000)) - alive), np.int64)
        claimed = shard.engine.run(lambda: store.below.may_have(gone_N))
        assert claimed.mean() < 0.2


def test_a_full_disk_budget_is_shared_over_tables(tmp_path: Path) -> None:
    with a_shard(disk={"path": tmp_path, "max_bytes": 1 << 20}, performance={"disk_cache_bytes": 1 << 20}) as shard:
        new_table(shard, "small", dim=4)
        new_table(shard, "large", dim=64)
        for start in range(0, 12_000, 500):
            push_ones(shard, range(start, start + 500), "small")
            push_ids(shard, "large", range(start, start + 500), np.ones((500, 64)))
        tables = list(shard.tables.values())
        assert sum(len(table) * table.bytes_each for table in tables) <= 0.8 * (1 << 20)
        assert all(table.counts.rows_evicted for table in tables)
        assert len(tables[0]) == pytest.approx(len(tables[1]), rel=0.3)


def test_rows_that_were_never_there_are_not_unchanged(shard: Shard) -> None:
    new_table(shard)
    result = shard.remove(a_write(), ids_of("t", [1, 2]), np.zeros((2, 2), np.uint32))
    assert result.existed_N.tolist() == [False, False]


def test_an_eviction_takes_no_time(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=100, half_life_pushes=6400)
    for start in range(0, 5000, 50):
        push_ones(shard, range(start, start + 50))
    table = shard.tables["t"]
    assert table.counts.rows_evicted > 4000
    assert table.ranking.now == table.counts.pushes == 100
    assert table.ranking.tick == 1


def test_by_recency_alone_the_rows_pushed_last_stay(shard: Shard) -> None:
    new_table(shard, max_rows_per_shard=1000, importance=ps.Importance(frequency=0, recency=1), half_life_pushes=64)
    push_ones(shard, range(5))
    for start in range(0, 5000, 100):
        push_ones(shard, range(start, start + 100))
        assert len(held(shard)) > 850 or start < 1000
    assert set(range(4500, 5000)) <= set(held(shard))


def test_rows_go_down_while_dropped_ones_are_still_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ps.storage.residence.dropped.SWEEP_SLOTS", 1)  # never done before the next eviction
    with a_shard(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}) as shard:
        new_table(shard, max_rows_per_shard=400, swap_fraction=0.8)
        for start in range(0, 8000, 40):
            push_ones(shard, range(start, start + 40))
        table = shard.tables["t"]
        assert table.counts.rows_evicted > 7000
        assert table.store.dropped.pending
        until(lambda: shard.engine.run(lambda: len(table.ram)) < 300)
