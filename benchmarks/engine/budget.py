"""A shard with a budget of RAM trains on ids that drift all the time and grow to 20 times what the budget holds.

The same pushes go to a shard without a budget (and without a disk), batch by batch in turn. The budgeted process's
memory is sampled every 100 ms from its start on.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

import ps
from benchmarks.harness.data import generator
from benchmarks.harness.measure import rss_bytes
from benchmarks.harness.report import Report
from benchmarks.harness.service import one_shard
from benchmarks.harness.sizes import Sizes
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.slots import SLOT_BYTES

RAM_BYTES = 64 << 20
DIM, TABLE = 64, "ids"
SAMPLE_S = 0.1
GROWN = 20
"""The ids grow to this many times the rows that fit."""


class Memory:
    """Samples how much more RAM than at its start a process takes, until it is closed."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = rss_bytes(pid)
        self._done = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def now(self) -> int:
        """Returns the bytes above the start."""
        grown = rss_bytes(self._pid) - self._start
        self.peak = max(self.peak, grown)
        return grown

    def close(self) -> None:
        """Ends the sampling."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.now()


@contextmanager
def watched(pid: int) -> Iterator[Memory]:
    """Samples a process during the block."""
    memory = Memory(pid)
    try:
        yield memory
    finally:
        memory.close()


def drifting(step: int, batch: int) -> npt.NDArray[np.int64]:
    """Returns the unique ids of a step, int64 [batch]: half of them new, the others from a window of earlier ones."""
    rng = np.random.default_rng(step)
    first = step * (batch // 2)
    old_N = rng.choice(8 * batch, batch - batch // 2, replace=False) + first - 8 * batch
    return np.concatenate([np.arange(first, first + batch // 2), old_N])


def run(report: Report, sizes: Sizes) -> None:
    """Trains with `batch` // 24 ids a step, half of them new, until there are GROWN times as many as fit."""
    batch = max(sizes.batch // 24, 256)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bounded, server = stack.enter_context(
            one_shard(
                ps.ServiceConfig(
                    memory=ps.MemoryConfig(ram_bytes=RAM_BYTES),
                    disk=ps.DiskConfig(path=folder),
                    watching=ps.WatchingConfig(metrics=False),
                )
            )
        )
        unlimited, _ = stack.enter_context(one_shard(ps.ServiceConfig(watching=ps.WatchingConfig(metrics=False))))
        memory = stack.enter_context(watched(server.pid))
        for client in (bounded, unlimited):
            client.create_table(ps.TableConfig(name=TABLE, dim=DIM))
        grads_ND = generator().standard_normal((batch, DIM), dtype=np.float32)
        room = (
            RamBudget(
                ps.ServiceConfig(memory=ps.MemoryConfig(ram_bytes=RAM_BYTES), disk=ps.DiskConfig(path=folder))
            ).for_slots(1)
            or 0
        )
        fit = room // (4 * DIM + 4 + SLOT_BYTES)
        rows = min(GROWN * fit, sizes.swap_rows)
        seconds: dict[ps.Client, list[float]] = {bounded: [], unlimited: []}
        shares = []
        for step in range(2 * rows // batch):
            for client in (bounded, unlimited) if step % 2 else (unlimited, bounded):
                started = time.perf_counter()
                _train(client, step, batch, grads_ND)
                seconds[client].append(time.perf_counter() - started)
            if step % 20 == 19:
                shares.append(bounded.memory_usage()["total"] / memory.now())
        report.add("growing", "peak_rss_vs_ram_bytes", memory.peak / RAM_BYTES)
        report.add("growing", "memory_usage_vs_rss", shares or [bounded.memory_usage()["total"] / memory.now()])
        for name, client in {"growing": bounded, "unlimited": unlimited}.items():
            report.add(name, "rows_per_s", len(seconds[client]) * batch / sum(seconds[client]))
        report.add("growing", "speed_vs_unlimited", sum(seconds[unlimited]) / sum(seconds[bounded]))
        table = bounded.stats()["shards"][0]["tables"][TABLE]["rows"]
        report.add("growing", "rows_in_ram", float(table["hot"]))
        report.add("growing", "rows_vs_in_ram", sum(table.values()) / table["hot"])


def _train(client: ps.Client, step: int, batch: int, grads_ND: npt.NDArray[np.float32]) -> None:
    """Trains one prepared step."""
    prepared = client.prepare({TABLE: drifting(step, batch)})
    prepared.pull()
    prepared.push({TABLE: grads_ND})
