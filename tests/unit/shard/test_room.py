"""No eviction takes a table below 0.85 of its room, whatever comes; with a disk the same rows are left."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ps
from ps.errors import ResourceExhausted
from ps.policy.ranking import LAST_STAMP
from ps.shard import Shard
from ps.storage.disk.codec import PARTITIONS
from ps.storage.disk.database import Disk
from ps.table.table import Table
from tests.unit.shard.helpers import DIM, a_write, everything, ids_of, new_table, push_ids

importances = st.sampled_from(
    [
        ps.Importance(),
        ps.Importance(frequency=0, recency=1),
        ps.Importance(frequency=1, recency=8),
        ps.Importance(frequency=0, occurrences=2),
        ps.Importance(frequency=0, attribution=1),
        ps.Importance(frequency=0, external=1),
    ]
)
tables = st.fixed_dictionaries(
    {
        "max_rows_per_shard": st.integers(1, 60),
        "importance": importances,
        "half_life_pushes": st.sampled_from([None, 64, 500, 10**12]),
        "swap_fraction": st.sampled_from([0, 0.8]),
        "cold": st.sampled_from([None, None, ps.Fp16(hot_fraction=0.3)]),
    }
)
writes = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "upsert", "remove", "report"]),
        st.integers(0, 300),
        st.sampled_from([1, 2, 7, 40, 200]),
        st.integers(1, 12),
        st.booleans(),
    ),
    max_size=12,
)
"""What, the first id, how many, how often, and whether other ids each time."""


def exported(shard: Shard) -> dict[int, tuple[bytes, bytes]]:
    """Values and statistics by id."""
    found, cursor = {}, 0
    while True:
        page = shard.export_page("t", cursor, 1000)
        for id_, value_D, statistics_2 in zip(page.ids_N.tolist(), page.values_ND, page.statistics_N2, strict=True):
            found[id_] = value_D.tobytes(), statistics_2.tobytes()
        cursor = page.next_cursor
        if not cursor:
            return found


class Tables:
    """The same table on several shards."""

    def __init__(self, shards: list[Shard], config: dict[str, Any]) -> None:
        self.shards = shards
        for shard in shards:
            new_table(shard, **config)
        self.most = config["max_rows_per_shard"]
        self.external = config["importance"].external > 0

    def write(self, what: str, ids: range) -> None:
        sizes = []
        for shard in self.shards:
            table = shard.tables["t"]
            before = table.counts.rows_evicted
            self._write(shard, what, ids)
            sizes.append(len(table))
            assert len(table) <= self.most
            if table.counts.rows_evicted > before:
                assert len(table) >= ceil(0.85 * self.most)
        assert len(set(sizes)) == 1

    def _write(self, shard: Shard, what: str, ids: range) -> None:
        if what == "push":
            push_ids(shard, "t", ids, np.ones((len(ids), DIM)))
        elif what == "upsert":
            shard.upsert(a_write(), ids_of("t", ids), [np.ones((len(ids), DIM), np.float32)])
        elif what == "remove":
            shard.remove(a_write(), ids_of("t", ids))
        elif self.external:
            shard.report_importance(a_write(), ids_of("t", ids), np.ones(len(ids), np.float32))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(tables, writes)
def test_no_eviction_goes_below_its_bound(config: dict[str, Any], made: list[tuple[str, int, int, int, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shards = [
            Shard(0, ps.ServiceConfig()),
            Shard(0, ps.ServiceConfig(disk={"path": Path(folder)}, performance={"disk_cache_bytes": 1 << 20})),
        ]
        try:
            same = Tables(shards, config)
            for what, first, n, times, other in made:
                for turn in range(times):
                    start = first + turn * n if other else first
                    same.write(what, range(start, start + n))
            assert exported(shards[0]) == exported(shards[1])
        finally:
            for shard in shards:
                shard.close()


@pytest.mark.parametrize("half_life", [None, 64, 10_000])
@pytest.mark.parametrize("new", [100, 1500])
def test_new_ids_alone_leave_a_table_full(half_life: int | None, new: int) -> None:
    """Of `all_gone`: 77 pushes, and the table was empty."""
    with closing_table(max_rows_per_shard=1000, half_life_pushes=half_life) as (table, push):
        for start in range(0, 160 * new, new):
            push(np.arange(start, start + new))
            assert len(table) >= min(850, start + new)


def test_the_only_row_that_there_is_room_for_stays() -> None:
    with closing_table(max_rows_per_shard=1) as (table, push):
        for id_ in range(20):
            push(np.array([id_]))
            assert len(table) == 1


def test_a_budget_in_ram_leaves_tables_full() -> None:
    """Of `all_gone`, by ram_bytes and without a disk: from 86,062 rows to none."""
    shard = Shard(0, ps.ServiceConfig(memory={"ram_bytes": 64 << 20}))
    shard.create_table(ps.TableConfig(name="t", dim=64))
    shard.create_table(ps.TableConfig(name="few", dim=64))
    push_ids(shard, "few", [1], np.ones((1, 64)))
    sizes = []
    for start in range(0, 40 * 8000, 8000):
        push_ids(shard, "t", range(start, start + 8000), np.ones((8000, 64), np.float32))
        sizes.append(len(shard.tables["t"]))
    assert min(sizes[12:]) > 0.85 * max(sizes) > 60_000
    assert len(shard.tables["few"]) == 1, "its share of the room is one row"
    shard.close()


def test_all_ids_get_their_chance() -> None:
    """Of `starved`: 800 ids that come every 10th push, among 100 new ones a push. 403 of them were never found."""
    for half_life in (None, 64):
        with closing_table(max_rows_per_shard=1000, half_life_pushes=half_life) as (table, push):
            found = np.zeros(800, int)
            for turn in range(1000):
                hot_N = (np.arange(80) + 80 * turn) % 800
                found[hot_N] += table.find(hot_N) >= 0
                push(np.concatenate([hot_N, np.arange(100) + 10_000 + 100 * turn]))
            assert (found == 0).mean() < 0.02
            assert np.median(found) > 2


@pytest.mark.parametrize("half_life", [None, 64, 640, 10_000])
def test_recency_alone_is_lru_to_the_push(half_life: int | None) -> None:
    """Of `lru_tick`."""
    recency = ps.Importance(frequency=0, recency=1)
    with closing_table(max_rows_per_shard=1000, half_life_pushes=half_life, importance=recency) as (table, push):
        for turn in range(11):
            push(np.arange(100) + 100 * turn)
        here_NP = (table.find(np.arange(1100)) >= 0).reshape(11, 100)
        assert here_NP.sum(axis=1).tolist() == [0, 50] + [100] * 9


def test_no_tick_is_lost_to_an_eviction() -> None:
    """Every tick of the clock decides about the precision of rows: 384 passed, and 93 were."""
    cold = ps.Fp16(hot_fraction=0.3)
    with closing_table(max_rows_per_shard=100, half_life_pushes=64, cold=cold) as (table, push):
        decided = 0
        decide = table.cold.tick

        def counting() -> None:
            nonlocal decided
            decided += 1
            decide()

        table.cold.tick = counting  # type: ignore[method-assign]
        for start in range(0, 60 * 50, 50):
            table.writes.plan_upsert(np.array([start]), [np.ones((1, 1), np.float32)]).carry_out()
            push(np.arange(start, start + 50))
        assert table.ranking.tick == decided >= 60


def test_a_clock_at_its_end_refuses_writes_before_they_change_anything() -> None:
    shard = Shard(0)
    new_table(shard)
    push_ids(shard, "t", [1], np.ones((1, DIM)))
    shard.tables["t"].ranking.now = LAST_STAMP
    version, before = shard.version, everything(shard, "t")
    for write in (
        lambda: push_ids(shard, "t", [1, 2], np.ones((2, DIM))),
        lambda: shard.upsert(a_write(), ids_of("t", [3]), [np.ones((1, DIM), np.float32)]),
    ):
        with pytest.raises(ResourceExhausted, match="create it again"):
            write()
    assert shard.version == version
    for left, right in zip(before, everything(shard, "t"), strict=True):
        np.testing.assert_array_equal(left, right)
    shard.close()


class closing_table:  # noqa: N801  it is used as a function
    """A table in this process, and a function that pushes ids to it."""

    def __init__(self, **config: Any) -> None:
        self.table = Table(ps.TableConfig(name="t", dim=1, **config))

    def push(self, ids_N: np.ndarray) -> None:
        slots_N = self.table.find(ids_N)
        self.table.reserve.create_missing(ids_N, slots_N)
        self.table.writes.plan_push(ids_N, slots_N, None, [np.ones((len(ids_N), 1), np.float32)]).carry_out()

    def __enter__(self) -> tuple[Table, Callable[[np.ndarray], None]]:
        return self.table, self.push

    def __exit__(self, *_: object) -> None:
        self.table.close()


def test_a_row_that_was_cut_made_again_and_demoted_counts_once(tmp_path: Path) -> None:
    """Its earlier life may lie on disk still when it goes down."""
    disk = Disk(tmp_path / "rows", 1 << 20, 1)
    table = Table(ps.TableConfig(name="t", dim=1, max_rows_per_shard=100), disk=disk, resident_rows=lambda total: 10)
    store = table.store
    for turn in range(30):
        ids_N = np.arange(40) + 40 * (turn % 5)
        fetch = store.fetch(ids_N[table.find(ids_N) < 0])
        if fetch is not None:
            fetch.read()
            store.install(fetch)
            store.end(fetch)
        slots_N = table.find(ids_N)
        table.reserve.create_missing(ids_N, slots_N)
        table.writes.plan_push(ids_N, slots_N, None, [np.ones((40, 1), np.float32)]).carry_out()
        while (demotion := table.maintain()) is not None:
            demotion.write()
            store.finish(demotion)
        assert len(store.below.tier) == sum(map(len, store.below.tier.partitions(0, PARTITIONS)))
    assert table.counts.rows_evicted > 300
    table.close()
    disk.close()
