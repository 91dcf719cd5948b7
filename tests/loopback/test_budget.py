"""A real server process with little RAM: its memory stays where it was told to, and nothing but the clock notices."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.engine.budget import Memory, drifting, watched
from benchmarks.harness.service import one_shard

RAM = 64 << 20
DIM, BATCH = 64, 4000
TOLERANCE = 1.05

Bounded = tuple[ps.Client, Memory]


@pytest.fixture
def bounded(tmp_path: Path) -> Iterator[Bounded]:
    config = ps.ServiceConfig(memory={"ram_bytes": RAM}, disk={"path": tmp_path}, watching={"metrics": False})
    with one_shard(config) as (client, server), watched(server.pid) as memory:
        yield client, memory


def rows_of(client: ps.Client, name: str = "t") -> dict[str, int]:
    found: dict[str, int] = client.stats()["shards"][0]["tables"][name]["rows"]
    return found


def table(name: str = "t", **settings: object) -> ps.TableConfig:
    return ps.TableConfig(name=name, dim=DIM, **settings)


@pytest.mark.slow
def test_ids_grow_to_20_times_of_what_fits_and_values_are_those_of_a_shard_without_bounds(bounded: Bounded) -> None:
    client, memory = bounded
    with one_shard(ps.ServiceConfig(watching={"metrics": False})) as (unlimited, _):
        for one in (client, unlimited):
            one.create_table(table(optimizer=ps.Adagrad(lr=0.1)))
        step = 0
        while not step or sum(rows_of(client).values()) < 20 * rows_of(client)["hot"]:
            for _ in range(25):
                ids_N = drifting(step, BATCH)
                grads_ND = np.random.default_rng(step).standard_normal((BATCH, DIM), np.float32)
                for one in (client, unlimited):
                    prepared = one.prepare({"t": ids_N})
                    prepared.pull()
                    prepared.push({"t": grads_ND})
                step += 1
            assert memory.now() == pytest.approx(client.memory_usage()["total"], rel=0.05, abs=2 << 20)
        for old in range(0, step, 7):
            ids_N = drifting(old, BATCH)
            assert client.pull("t", ids_N).tobytes() == unlimited.pull("t", ids_N).tobytes()
        assert client.size("t") == unlimited.size("t")
    assert memory.peak < RAM * TOLERANCE


@pytest.mark.slow
def test_bursts_of_several_trainers_get_through_and_no_gradient_is_lost_or_doubled(bounded: Bounded) -> None:
    """Together they want more rows in RAM at once than there is room for, and more bytes under way."""
    client, memory = bounded
    for name in ("t", "u"):
        client.create_table(table(name, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
    trainers, batch, space, steps = 6, 5000, 100_000, 12

    def ids_of(trainer: int, step: int) -> np.ndarray:
        rng = np.random.default_rng((trainer, step))
        return rng.choice(space, batch, replace=False)

    def train(trainer: int) -> int:
        ones_ND = np.ones((batch, DIM), np.float32)
        with ps.connect(client.shards()[0].address, timeout_s=120) as mine:
            for step in range(steps):
                ids_N = ids_of(trainer, step)
                prepared = mine.prepare({"t": ids_N, "u": ids_N + 1})
                prepared.push({"t": ones_ND, "u": ones_ND})
            return int(mine.stats()["client"]["retries"])

    with ThreadPoolExecutor(trainers) as pool:
        retries = sum(pool.map(train, range(trainers)))
    assert retries, "the room was never short: this test shows nothing"
    expected_N = np.zeros(space, np.float32)
    for trainer in range(trainers):
        for step in range(steps):
            expected_N[ids_of(trainer, step)] -= 1
    for start in range(0, space, batch):
        ids_N = np.arange(start, start + batch)
        for name, shift in (("t", 0), ("u", 1)):
            assert (client.pull(name, ids_N + shift) == expected_N[ids_N, None]).all()
    assert memory.peak < RAM * TOLERANCE


def test_a_request_that_can_never_fit_is_told_so_at_once(bounded: Bounded) -> None:
    client, _ = bounded
    client.create_table(ps.TableConfig(name="t", dim=1, optimizer=ps.SGD()))
    client.create_table(table("wide"))
    with pytest.raises(ps.errors.ResourceExhausted, match="ram_bytes"):
        client.push("t", np.arange(600_000), np.zeros((600_000, 1), np.float32))
    with pytest.raises(ps.errors.ResourceExhausted, match="ram_bytes"):
        client.push("wide", np.arange(20_000), np.zeros((20_000, DIM), np.float32))
    client.push("t", np.arange(10), np.zeros((10, 1), np.float32))
    assert client.size("t") == 10


def test_without_a_disk_the_least_important_rows_make_room() -> None:
    with (
        one_shard(ps.ServiceConfig(memory={"ram_bytes": RAM}, watching={"metrics": False})) as (client, server),
        watched(server.pid) as memory,
    ):
        client.create_table(table(optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        ones_ND, often = np.ones((BATCH, DIM), np.float32), np.arange(BATCH)
        for start in range(BATCH, 200 * BATCH, BATCH):
            client.push("t", often, ones_ND)
            client.push("t", np.arange(start, start + BATCH), ones_ND)
        counted = client.stats()["shards"][0]["tables"]["t"]
        assert counted["rows_evicted"] == 200 * BATCH - client.size("t") > 100 * BATCH
        assert (client.pull("t", often) == -199).all()
        used = client.memory_usage()
        assert memory.now() == pytest.approx(used["total"], rel=0.05, abs=2 << 20)
        assert set(used["tables"]["t"]["hot"]) == {"rows", "index", "metadata", "ranking", "pushes"}
        too_many = np.arange(10**9, 10**9 + 100 * BATCH)
        with pytest.raises(ps.errors.ResourceExhausted, match="ram_bytes") as refused:
            client.push("t", too_many, np.ones((len(too_many), DIM), np.float32))
        assert refused.value.retry_after_s is None
        assert not client.pull("t", too_many[:BATCH]).any()
        # a message of 100 MB leaves the allocator with room that it counts as its own and may not have in RAM
        assert memory.now() <= client.memory_usage()["total"] * TOLERANCE
        assert memory.peak < RAM * TOLERANCE
