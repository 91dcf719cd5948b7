"""A table whose hot rows torch holds, against one in RAM: the same ids and, within rounding, the same values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.errors import ResourceExhausted
from ps.shard import Shard, StepRef, TableIds
from tests.devices import DEVICES
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table, push, push_ids, read, read_target

IDS = 600
OPTIMIZERS = [ps.SGD(lr=0.1), ps.Adagrad(lr=0.1), ps.RowwiseAdagrad(lr=0.1), ps.Adam(lr=0.01), ps.FTRL(l1=0.1)]


def exported(shard: Shard) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    cursor = 0
    while True:
        page = shard.export_page("t", cursor, 100)
        found |= dict(zip(page.ids_N.tolist(), page.values_ND, strict=True))
        cursor = page.next_cursor
        if not cursor:
            return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.kind)
def test_one_history_gives_the_same_rows_in_ram_and_on_a_device(optimizer: Any, device: str, tmp_path: Path) -> None:
    """Pushes, prepared or not, upserts, assigns and removals; rows go to disk, come back and are evicted."""
    rng = np.random.default_rng(0)
    plain, other = (
        Shard(0),
        Shard(1, ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20})),
    )
    for shard, where in ((plain, "cpu"), (other, device)):
        new_table(
            shard,
            **{"optimizer": optimizer, "initializer": ps.Normal(), "swap_fraction": 0.7, "half_life_pushes": 64},
            **{"max_rows_per_shard": IDS * 2 // 3, "device": where},
        )
    for step in range(200):
        ids = (IDS * rng.random(40) ** 2).astype(np.int64)
        named, values_ND = [ids_of("t", np.unique(ids).tolist())], rng.standard_normal((len(np.unique(ids)), DIM))
        targets: list[Any] = [named, named]
        if rng.random() < 0.6:
            targets[1] = StepRef(1, step)
            other.prepare(targets[1], named)
        if rng.random() < 0.5:
            _same_values(plain, other, targets)
        how = rng.choice(["push"] * 8 + ["upsert", "assign", "remove"])
        for shard, target in zip((plain, other), targets, strict=True):
            if how == "push":
                push(shard, target, grads_of("t", values_ND))
            else:
                arguments = [] if how == "remove" else [[values_ND.astype(np.float32)]]
                getattr(shard, how)(a_write(), named[0], *arguments)
    tables = [shard.tables["t"] for shard in (plain, other)]
    assert tables[0].counts.rows_evicted == tables[1].counts.rows_evicted > 0
    assert tables[1].counts.rows_raised > 0
    assert tables[1].counts.rows_demoted > 0
    _same_values(plain, other, [[ids_of("t", range(IDS))]] * 2)
    rows = [exported(shard) for shard in (plain, other)]
    assert rows[0].keys() == rows[1].keys()
    for id_, value_D in rows[0].items():
        np.testing.assert_allclose(rows[1][id_], value_D, rtol=1e-5, atol=1e-5)
    plain.close()
    other.close()


def _same_values(plain: Shard, other: Shard, targets: list[StepRef | list[TableIds]]) -> None:
    first_ND, second_ND = (read_target(shard, target)[0] for shard, target in zip((plain, other), targets, strict=True))
    np.testing.assert_allclose(second_ND, first_ND, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_a_push_shared_by_two_threads_updates_every_row_once(device: str) -> None:
    shard, n = Shard(0), 50_000
    new_table(shard, device=device)
    for _ in range(3):
        push_ids(shard, "t", range(n), np.ones((n, DIM)))
    assert (read(shard, "t", range(n)) == -3).all()
    shard.close()


@pytest.mark.parametrize("device", DEVICES)
def test_a_push_that_would_pass_gpu_bytes_changes_no_table(device: str) -> None:
    shard, n = Shard(0, ps.ServiceConfig(memory={"gpu_bytes": 1 << 20})), 100_000
    new_table(shard, "in_ram")
    new_table(shard, device=device)
    push_ids(shard, "t", range(10), np.ones((10, DIM)))
    both = [ids_of("in_ram", range(5)), ids_of("t", range(n))]
    with pytest.raises(ResourceExhausted, match="gpu_bytes"):
        push(shard, both, grads_of("in_ram", np.ones((5, DIM))), grads_of("t", np.ones((n, DIM))))
    assert (len(shard.tables["in_ram"]), len(shard.tables["t"])) == (0, 10)
    assert (read(shard, "t", range(20)) == np.repeat([-1, 0], 10)[:, None]).all()
    push_ids(shard, "t", range(60_000), np.ones((60_000, DIM)))
    shard.drop_table("t")
    new_table(shard, device=device)
    push_ids(shard, "t", range(60_000), np.ones((60_000, DIM)))
    shard.close()
