"""A table that finds no room leaves nothing behind: not its name, and none of the others' memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.shard import Shard
from tests.unit.shard.helpers import new_table, push_ids, read
from tests.waiting import until


def held(shard: Shard) -> list[int | None]:
    budget = shard.budget
    return [budget.arrays.used, budget.filters.used, len(budget.slots._tables), budget.slots._nbytes]


def fill(shard: Shard) -> None:
    for number in range(1000):
        new_table(shard, f"t{number}", dim=16)


def test_a_refused_table_may_be_asked_for_again_and_takes_nothing(tmp_path: Path) -> None:
    shard = Shard(
        0, ps.ServiceConfig(memory={"ram_bytes": 64 << 20}, disk={"path": tmp_path}, watching={"metrics": False})
    )
    shard.budget._resize(-(8 << 20))  # fewer tables do
    with pytest.raises(ps.ResourceExhausted):
        fill(shard)
    made = len(shard.tables)
    before = held(shard)
    for _ in range(3):
        with pytest.raises(ps.ResourceExhausted):
            new_table(shard, f"t{made}", dim=16)
    assert held(shard) == before
    for number in range(made // 2, made):
        shard.drop_table(f"t{number}")
    new_table(shard, f"t{made}", dim=16)
    push_ids(shard, f"t{made}", [1, 2], [[1] * 16, [2] * 16])
    assert read(shard, f"t{made}", [1, 2])[:, 0].tolist() == [-1, -2]
    shard.close()


def test_a_table_whose_folder_was_lost_can_be_dropped_and_made_again(tmp_path: Path) -> None:
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path / "disk"}, performance={"disk_cache_bytes": 1 << 20}))
    new_table(shard, swap_fraction=0.9)
    push_ids(shard, "t", range(2000), [[1.0] * 4] * 2000)
    shutil.rmtree(tmp_path / "disk")
    for value in (2.0, 3.0):
        shard.drop_table("t")
        new_table(shard, swap_fraction=0.9)
        push_ids(shard, "t", range(2000), [[value] * 4] * 2000)
        assert (read(shard, "t", list(range(2000))) == -value).all()
    for _ in range(100):  # and its rows go down again
        push_ids(shard, "t", [1], [[0.0] * 4])
    until(lambda: shard.engine.run(lambda: shard.tables["t"].counts.rows_demoted) > 500)
    assert (read(shard, "t", list(range(2000))) == -3).all()
    shard.close()


def test_26_tables_have_room_in_128_mib(tmp_path: Path) -> None:
    """As many as Criteo's data set has, some of a few rows and some of many."""
    shard = Shard(
        0, ps.ServiceConfig(memory={"ram_bytes": 128 << 20}, disk={"path": tmp_path}, watching={"metrics": False})
    )
    for number in range(26):
        new_table(shard, f"C{number}", dim=16)
    for start in (0, 4000):
        for number in range(26):
            ids = range(start, start + (4000 if number % 3 else 40))
            push_ids(shard, f"C{number}", ids, np.ones((len(ids), 16), np.float32))
    assert (read(shard, "C25", list(range(8000))) == -1).all()
    shard.close()


def test_cores_and_rows_of_a_refused_table_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("injected")

    shard = Shard(0, ps.ServiceConfig(memory={"ram_bytes": 256 << 20}, watching={"metrics": False}))
    before = held(shard)
    cold = ps.TensorTrain(rows=10_000, ranks=8, hot_rows=100)
    monkeypatch.setattr("ps.table.write.Overflows", broken)  # late: all else is there
    for settings in ({"initializer": ps.Normal(std=0.1), "cold": cold}, {"cold": ps.Fp16()}, {}):
        with pytest.raises(MemoryError):
            new_table(shard, dim=16, **settings)
        assert held(shard) == before
    shard.close()
