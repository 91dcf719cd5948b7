"""Many threads at one disk shard with a slow, now and then failing disk: sums come out right and nothing stays held."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ps
from ps.errors import DiskError, PsError
from ps.shard import Shard, StepRef
from tests.unit.shard.helpers import (
    DIM,
    a_write,
    at_rest,
    grads_of,
    ids_of,
    new_table,
    none_held,
    push,
    read,
    read_target,
)
from tests.waiting import until

IDS, THREADS = 200, 4
CHURNED = 50
"""Ids beyond IDS, which are removed and written again all the time: they take and free slots, and end pins."""


class SlowDisk:
    """Delays and fails calls of a table's disk, as a seed says."""

    def __init__(self, shard: Shard, seed: int) -> None:
        self.failing = True
        self._random = random.Random(seed)
        for method in ("read", "write"):
            self._wrap(shard.tables["t"].store.below.tier, method)

    def _wrap(self, tier: Any, method: str) -> None:
        real = getattr(tier, method)

        def call(*arguments: Any) -> Any:
            time.sleep(self._random.choice([0, 0, 0.001, 0.005]))
            if self.failing and self._random.random() < 0.03:
                raise DiskError("injected")
            return real(*arguments)

        setattr(tier, method, call)


def work(shard: Shard, worker: int, rounds: int) -> np.ndarray:
    """Pushes of whole numbers, prepared or not, between other calls; what has been pushed to each id in all."""
    rng = np.random.default_rng(worker)
    pushed_N = np.zeros(IDS)
    for round_ in range(rounds):
        ids_N = rng.choice(IDS, 40, replace=False)
        named, ref = [ids_of("t", ids_N)], StepRef(worker, round_)
        with_step = False
        try:
            if rng.random() < 0.6:
                shard.prepare(ref, named)
                with_step = True
            rows_ND = read_target(shard, ref if with_step else named)[0]
            assert (rows_ND <= -pushed_N[ids_N][:, None]).all(), "older than what this thread has pushed itself"
            churned = ids_of("t", IDS + rng.choice(CHURNED, 10, replace=False))
            if rng.random() < 0.3:
                shard.remove(a_write(), churned)
            else:
                shard.upsert(a_write(), churned, [np.full((10, DIM), 7, np.float32)])
        except PsError as error:
            assert "injected" in str(error), error
        write = a_write()
        while True:
            try:
                push(shard, ref if with_step else named, grads_of("t", np.ones((len(ids_N), DIM))), write=write)
                break
            except DiskError:
                pass
        pushed_N[ids_N] += 1
    return pushed_N


def churn_tables(shard: Shard, ended: threading.Event) -> None:
    while not ended.is_set():
        new_table(shard, "gone", swap_fraction=0.7)
        push(shard, [ids_of("gone", range(100))], grads_of("gone", np.ones((100, DIM))))
        shard.prepare(StepRef(99, 1), [ids_of("gone", range(100))])
        shard.drop_table("gone")


@pytest.mark.parametrize("rounds", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_sums_are_right_and_nothing_is_held(tmp_path: Path, rounds: int) -> None:
    before = set(threading.enumerate())
    shard = Shard(0, ps.ServiceConfig(disk={"path": tmp_path}, performance={"disk_cache_bytes": 1 << 20}))
    new_table(shard, swap_fraction=0.8)
    disk = SlowDisk(shard, seed=rounds)
    ended = threading.Event()
    with ThreadPoolExecutor(THREADS + 1) as pool:
        churning = pool.submit(churn_tables, shard, ended)
        workers = [pool.submit(work, shard, worker, rounds) for worker in range(1, THREADS + 1)]
        try:
            pushed_N = sum(worker.result() for worker in workers)
        finally:
            ended.set()
        churning.result()
    disk.failing = False
    assert (read(shard, "t", range(IDS)) == -np.asarray(pushed_N)[:, None]).all()
    assert set(np.unique(read(shard, "t", range(IDS, IDS + CHURNED)))) <= {0.0, 7.0}
    store = shard.tables["t"].store
    assert shard.tables["t"].counts.rows_demoted > 0
    until(lambda: shard.engine.run(lambda: at_rest(store)))
    assert none_held(store)
    shard.close()
    assert not [
        thread.name
        for thread in set(threading.enumerate()) - before
        if thread.name.startswith(("io-", "engine-", "ps-disk"))
    ]
