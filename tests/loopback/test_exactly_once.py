"""Every gradient is applied exactly once, whatever the network does and however many trainers there are.

Gradients are whole numbers, the learning rate is 1 and rows start at 0: then each row is minus the sum of its
gradients to the last bit, whichever order they came in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, contents, summing

TRAINERS = 2
STEPS = 60
IDS = 300

FAULTS = {
    "clean": Rates(),
    "requests lost": Rates(drop_request=0.15),
    "answers lost": Rates(drop_response=0.15),
    "requests repeated": Rates(repeat=0.3),
    "requests delayed": Rates(late=0.15),
    "all of it": Rates(drop_request=0.06, drop_response=0.06, repeat=0.15, late=0.06),
}


@pytest.fixture
def two_shards() -> Iterator[LoopbackCluster]:
    with LoopbackCluster(2, QUIET) as cluster:
        yield cluster


def batches(trainer: int) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Per table ids with duplicates, and whole-number gradients; both trainers use the same ids."""
    rng = np.random.default_rng(trainer)
    for _ in range(STEPS):
        ids = {name: rng.zipf(1.3, 64) % IDS - IDS // 2 for name in ("a", "b")}
        yield ids, {name: block(rng.integers(-8, 9, len(part))) for name, part in ids.items()}


def expected() -> dict[str, dict[int, list[float]]]:
    sums: dict[str, dict[int, np.ndarray]] = {"a": {}, "b": {}}
    for trainer in range(TRAINERS):
        for ids, grads in batches(trainer):
            for name, part in ids.items():
                for id_, grad in zip(part.tolist(), grads[name], strict=True):
                    sums[name][id_] = sums[name].get(id_, np.zeros(DIM)) - grad
    return {name: {id_: row.tolist() for id_, row in rows.items()} for name, rows in sums.items()}


def by_handle(client: ps.Client, trainer: int) -> None:
    """Three steps prepared ahead, as a prefetching trainer has them."""
    held = []
    for ids, grads in batches(trainer):
        held.append((client.prepare(ids), grads))
        if len(held) == 4:
            train(*held.pop(0))
    for step, grads in held:
        train(step, grads)


def train(step: ps.Step, grads: dict[str, np.ndarray]) -> None:
    rows = step.pull()
    assert all(np.isfinite(part).all() for part in rows.values())
    step.push(grads)


def by_ids(client: ps.Client, trainer: int) -> None:
    """The one-shot forms: a push for each table."""
    for ids, grads in batches(trainer):
        for name, part in ids.items():
            client.pull(name, part)
            client.push(name, part, grads[name])


def in_threads(work: list[Callable[[], None]]) -> None:
    """Runs all at once and raises the first error."""
    with ThreadPoolExecutor(len(work)) as pool:
        for future in [pool.submit(task) for task in work]:
            future.result()


def assert_exact(cluster: LoopbackCluster, pushes: int) -> None:
    """The rows are the sums, and each shard has counted each push once."""
    with ps.connect(cluster.address) as client:
        for name, rows in expected().items():
            assert contents(client, name) == rows
        applied = [shard["pushes"] for shard in client.stats()["shards"]]
    assert max(applied) <= pushes


@pytest.mark.parametrize("loop", [by_handle, by_ids])
@pytest.mark.parametrize("network", FAULTS)
def test_two_trainers_sums_are_exact(
    two_shards: LoopbackCluster, network: str, loop: Callable[[ps.Client, int], None]
) -> None:
    faults = [Faults(seed, FAULTS[network]) for seed in range(TRAINERS)]
    with ps.connect(two_shards.address) as setup:
        for name in ("a", "b"):
            setup.create_table(summing(name))
    clients = [ps.Client(Connection(two_shards.address, fault.open, Hurried())) for fault in faults]
    try:
        in_threads([lambda i=i: loop(clients[i], i) for i in range(TRAINERS)])
    finally:
        for client in clients:
            client.close()
    assert_exact(two_shards, pushes=TRAINERS * STEPS * (1 if loop is by_handle else 2))
    happened = sum(sum(fault.seen.values()) for fault in faults)
    assert (happened > 20) == (network != "clean"), "the network did what the case says"


def test_repeats_reach_the_shards_and_are_answered_from_the_ledger(two_shards: LoopbackCluster) -> None:
    """So that the exact sums above are the ledger's doing."""
    faults = Faults(1, Rates(drop_response=0.3, repeat=0.3))
    with ps.connect(two_shards.address) as setup:
        setup.create_table(summing())
    with ps.Client(Connection(two_shards.address, faults.open, Hurried())) as client:
        for _ in range(30):
            client.push("t", range(10), block(np.ones(10)))
        repeats = sum(shard["repeated_pushes"] for shard in client.stats()["shards"])
        assert repeats >= 10
        np.testing.assert_array_equal(client.pull("t", range(10)), -block(np.full(10, 30)))


def test_explicit_writes_are_applied_once_and_answered_as_the_first_time(two_shards: LoopbackCluster) -> None:
    """A late upsert must not undo the push that followed it, a repeated removal must not say that nothing was there."""
    faults = Faults(2, Rates(drop_response=0.2, repeat=0.2, late=0.2))
    with ps.connect(two_shards.address) as setup:
        setup.create_table(summing())
    with ps.Client(Connection(two_shards.address, faults.open, Hurried())) as client:
        ids = np.arange(20)
        for _ in range(15):
            assert not client.upsert("t", ids, block(np.full(20, 100))).any()
            client.push("t", ids, block(np.ones(20)))
            np.testing.assert_array_equal(client.pull("t", ids), block(np.full(20, 99)))
            assert client.assign("t", ids, block(ids)).all()
            np.testing.assert_array_equal(client.pull("t", ids), block(ids))
            assert client.remove("t", ids).all()
    assert sum(faults.seen.values()) > 20


def test_one_client_may_be_used_by_many_threads(two_shards: LoopbackCluster) -> None:
    faults = Faults(3, Rates(drop_response=0.1, repeat=0.1))
    with ps.connect(two_shards.address) as setup:
        setup.create_table(summing())
    with ps.Client(Connection(two_shards.address, faults.open, Hurried())) as client:

        def push(value: int) -> None:
            for _ in range(20):
                client.push("t", np.arange(50), block(np.full(50, value)))

        in_threads([lambda value=value: push(value) for value in range(8)])
        np.testing.assert_array_equal(client.pull("t", np.arange(50)), -block(np.full(50, 20 * sum(range(8)))))


TRAINER = """
import sys
import ps
from tests.loopback.test_exactly_once import by_handle

with ps.connect(sys.argv[1]) as client:
    print("ready", flush=True)
    sys.stdin.readline()
    by_handle(client, int(sys.argv[2]))
"""


def test_two_trainer_processes_sums_are_exact(two_shards: LoopbackCluster) -> None:
    with ps.connect(two_shards.address) as setup:
        for name in ("a", "b"):
            setup.create_table(summing(name))
    root = Path(__file__).parents[2]
    trainers = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINER, two_shards.address, str(trainer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        for trainer in range(TRAINERS)
    ]
    try:
        for trainer in trainers:
            assert trainer.stdout is not None
            assert trainer.stdout.readline() == "ready\n", trainer.communicate()[1]
        for trainer in trainers:
            assert trainer.stdin is not None
            trainer.stdin.write("go\n")
            trainer.stdin.flush()
        for trainer in trainers:
            _, stderr = trainer.communicate(timeout=120)
            assert trainer.returncode == 0, stderr
    finally:
        for trainer in trainers:
            trainer.kill()
            trainer.communicate()
    assert_exact(two_shards, pushes=TRAINERS * STEPS)
