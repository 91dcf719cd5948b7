"""`psctl size` against server processes: their memory and their files are what it says, within a tenth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.measure import rss_bytes
from benchmarks.processes import Child
from benchmarks.service import one_shard
from ps.cli.nodes import Demand, ShardSize, settled, shard_size
from tests.waiting import until

WITHIN = 0.1
SETTLING_S = 60.0

pytestmark = pytest.mark.slow


@contextmanager
def trained(demand: Demand, steps: int) -> Iterator[tuple[ps.Client, Child, int]]:
    """A shard with the suggested settings whose table was filled by pushes of new ids, then trained by so many of old
    ones; and what its process took at the start."""
    ((config, rows),) = demand.tables
    rng = np.random.default_rng(0)
    ids_N = rng.integers(-(2**62), 2**62, rows)
    grads_ND = rng.standard_normal((demand.step_ids, config.dim), np.float32)
    with one_shard(settled(demand).service) as (client, server):
        start = rss_bytes(server.pid)
        client.create_table(config)
        parts = np.array_split(ids_N, rows // demand.step_ids)
        old = (rng.choice(ids_N, demand.step_ids, replace=False) for _ in range(steps))
        for some_N in (*parts, *old):
            step = client.prepare({config.name: some_N})
            step.pull()
            step.push({config.name: grads_ND[: len(some_N)]})
        assert client.size(config.name) == rows, "none was evicted: the settings have room for all"
        yield client, server, start


def check_memory(size: ShardSize, server: Child, start: int) -> None:
    now = rss_bytes(server.pid)
    print(f"RAM: {now:,} measured, {size.ram_bytes:,} predicted; above the start {now - start:,}", end=" ")
    print(f"and {size.ram_bytes - size.start_bytes:,}")
    assert size.ram_bytes == pytest.approx(now, rel=WITHIN)
    assert size.ram_bytes - size.start_bytes == pytest.approx(now - start, rel=WITHIN)


def test_float32_rows_with_adagrad_in_ram() -> None:
    config = ps.TableConfig(name="t", dim=64, optimizer=ps.Adagrad())
    demand = Demand([(config, 400_000)], ps.ServiceConfig(metrics=False), step_ids=5000, new_ids=5000)
    with trained(demand, steps=0) as (_, server, start):
        check_memory(shard_size(settled(demand)), server, start)


def test_cold_rows_in_half_precision() -> None:
    config = ps.TableConfig(
        name="t", dim=64, optimizer=ps.Adagrad(), cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=64
    )
    demand = Demand([(config, 600_000)], ps.ServiceConfig(metrics=False), step_ids=2000, new_ids=2000)
    with trained(demand, steps=0) as (_, server, start):
        check_memory(shard_size(settled(demand)), server, start)


def test_half_of_the_rows_on_disk(tmp_path: Path) -> None:
    """Every row is trained several times, so that nearly all have been on disk. Files are compared when RocksDB rests."""
    config = ps.TableConfig(name="t", dim=128)
    service = ps.ServiceConfig(metrics=False, disk_path=tmp_path)
    demand = Demand([(config, 300_000)], service, step_ids=5000, new_ids=5000)
    with trained(demand, steps=300) as (client, server, start):
        size = shard_size(settled(demand))
        check_memory(size, server, start)
        seen: list[int] = []

        def at_rest() -> bool:
            seen.append(int(client.stats()["shards"][0]["disk_bytes"]))
            return len(seen) > 2000 and len(set(seen[-2000:])) == 1

        until(at_rest, SETTLING_S)
        print(f"disk: {seen[-1]:,} measured, {size.disk_bytes:,} predicted")
        assert size.disk_bytes == pytest.approx(seen[-1], rel=WITHIN)
