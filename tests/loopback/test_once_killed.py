"""A million updates of rows reach their shards exactly once, through a bad network and the ends of processes.

Gradients are whole numbers, the learning rate is 1 and rows start at 0: then each row is minus the sum of its
gradients to the last bit.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.durability.fleet import Fleet
from benchmarks.durability.pushes import Pushes
from ps.client.connection.connection import Connection
from ps.shard.ledger import ENTRY_BYTES, WORKER_BYTES
from ps.wire import methods
from tests.clocks import Hurried
from tests.faults import Faults, Rates
from tests.loopback.tables import block, summing

TRAINERS, PUSHES, UPDATES = 4, 1250, 200
"""1,000,000 updates in all."""
IDS, SHARDS, KILLS = 5_000, 2, 20
WINDOW = 256
"""Writes of a worker that a ledger remembers: fewer than there are."""
RATES = Rates(0.1, 0.1, 0.1, 0.1, (methods.PUSH,))
PATIENCE_S = 600.0


def batches(trainer: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(trainer)
    for _ in range(PUSHES):
        yield rng.choice(IDS, UPDATES, replace=False), rng.integers(-8, 9, UPDATES)


def expected() -> np.ndarray:
    sums_N = np.zeros(IDS, np.int64)
    for trainer in range(TRAINERS):
        for ids_N, grads_N in batches(trainer):
            sums_N[ids_N] -= grads_N
    return sums_N


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_million_updates_are_applied_exactly_once_through_faults_and_kills(tmp_path: Path) -> None:
    config = ps.ServiceConfig().having(
        log={"mode": "interval", "path": tmp_path / "log"},
        limits={"ledger_window": WINDOW},
        watching={"metrics": False},
    )
    faults = [Faults(seed, RATES) for seed in range(TRAINERS)]
    done, more = [0] * TRAINERS, threading.Condition()
    with Fleet(tmp_path, config, Pushes(IDS, UPDATES, SHARDS)) as fleet:
        with ps.connect(fleet.address) as client:
            client.create_table(summing())

        def train(trainer: int) -> None:
            with ps.Client(Connection(fleet.address, faults[trainer].open, Hurried()), timeout_s=PATIENCE_S) as client:
                for ids_N, grads_N in batches(trainer):
                    client.push("t", ids_N, block(grads_N))
                    with more:
                        done[trainer] += 1
                        more.notify()

        with ThreadPoolExecutor(TRAINERS) as pool:
            training = [pool.submit(train, trainer) for trainer in range(TRAINERS)]
            kill_while_they_train(fleet, done, more, training)
            for future in training:
                future.result()
        with ps.connect(fleet.address) as client:
            np.testing.assert_array_equal(client.pull("t", np.arange(IDS)), block(expected()))
            shards = client.stats()["shards"]
    for fault in faults:
        assert min(fault.seen[kind] for kind in ("drop_request", "drop_response", "repeat", "late")) > PUSHES // 20
    assert sum(shard["repeated_pushes"] for shard in shards) > 0
    most = TRAINERS * (WINDOW * ENTRY_BYTES + WORKER_BYTES) + 2 * (ENTRY_BYTES + WORKER_BYTES)
    assert all(0 < shard["bytes"]["ledger"] <= most for shard in shards)


def kill_while_they_train(fleet: Fleet, done: list[int], more: threading.Condition, training: list) -> None:
    chance = random.Random(20)
    for kill in range(1, KILLS + 1):
        wanted = kill * TRAINERS * PUSHES // (KILLS + 1)
        with more:
            while sum(done) < wanted and not any(future.done() and future.exception() for future in training):
                more.wait(1.0)
        shard = chance.randrange(SHARDS)
        fleet.shards[shard].kill()
        fleet.restart_shard(shard)
