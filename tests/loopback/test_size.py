"""`psctl size` against server processes: their memory and their files are what it says, within a tenth."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ps
from benchmarks.harness.measure import rss_bytes
from benchmarks.harness.processes import Child
from benchmarks.harness.service import one_shard
from ps.cli.sizing.demand import Demand, ShardSize, shard_size
from ps.cli.sizing.nodes import settled
from tests.waiting import until

WITHIN = 0.1
RESTS_S, SETTLING_S = 3.0, 60.0

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
    demand = Demand([(config, 400_000)], ps.ServiceConfig(watching={"metrics": False}), step_ids=5000, new_ids=5000)
    with trained(demand, steps=0) as (_, server, start):
        check_memory(shard_size(settled(demand)), server, start)


def test_cold_rows_in_half_precision() -> None:
    config = ps.TableConfig(
        name="t", dim=64, optimizer=ps.Adagrad(), cold=ps.Fp16(hot_fraction=0.1), half_life_pushes=64
    )
    demand = Demand([(config, 600_000)], ps.ServiceConfig(watching={"metrics": False}), step_ids=2000, new_ids=2000)
    with trained(demand, steps=0) as (_, server, start):
        check_memory(shard_size(settled(demand)), server, start)


def test_half_of_the_rows_on_disk(tmp_path: Path) -> None:
    """Every row is trained a few times, and the last push counts most, so that nearly all have been on disk. Files are
    compared when RocksDB rests."""
    config = ps.TableConfig(name="t", dim=128, half_life_pushes=64)
    service = ps.ServiceConfig(watching={"metrics": False}, disk={"path": tmp_path})
    demand = Demand([(config, 300_000)], service, step_ids=5000, new_ids=5000)
    with trained(demand, steps=240) as (client, server, start):
        size = shard_size(settled(demand))
        check_memory(size, server, start)
        seen, since_s = 0, time.monotonic()

        def at_rest() -> bool:
            nonlocal seen, since_s
            now = int(client.stats()["shards"][0]["disk_bytes"])
            if now != seen:
                seen, since_s = now, time.monotonic()
            return time.monotonic() > since_s + RESTS_S

        until(at_rest, SETTLING_S)
        below = client.stats()["shards"][0]["tables"]["t"]["disk"]["rows"]
        print(
            f"disk: {seen:,} measured, {size.disk_bytes:,} predicted; {below:,} rows, {size.tables[0].rows_on_disk:,}"
        )
        assert size.disk_bytes == pytest.approx(seen, rel=WITHIN)
