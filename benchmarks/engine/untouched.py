"""What a push costs beside tables that it does not name, and beside steps that others have prepared.

Shards with a disk and a budget of RAM, in this process. All of them get the same pushes of ROWS rows in turn, and each
is charged the time that its engine thread has worked, with what follows a push: evictions, rows that go down to disk.
`moving`: a row is removed before each push, so that every slot found before it must be looked up again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import ps
from benchmarks.harness.data import generator, gradients
from benchmarks.harness.measure import WARM_UP_ROUNDS, Rounds
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.shard import Gradients, Shard, StepRef, TableIds
from ps.shard.ledger import WriteId

ROWS, DIM = 100, 16
RAM_BYTES = 1 << 30
PUSHES = 40
"""Pushes to each shard in a round."""
WORKER = 1


@dataclass(frozen=True)
class Case:
    """Tables of a shard, steps that are prepared all the time, and whether rows are removed."""

    tables: int = 10
    steps: int = 0
    moving: bool = False


CASES = {
    "tables_10": Case(),
    "tables_200": Case(tables=200),
    "steps_64": Case(steps=64),
    "steps_0_moving": Case(moving=True),
    "steps_64_moving": Case(steps=64, moving=True),
}
COMPARED = {"tables_200": "tables_10", "steps_64": "tables_10", "steps_64_moving": "steps_0_moving"}


def run(report: Report, sizes: Sizes) -> None:
    """Tables of 10 `batch`es of rows together; each step names `batch` // 100 of the first table's ids, half of which
    have no row yet."""
    with ExitStack() as stack:
        shards = {name: _Pushed(stack, case, sizes) for name, case in CASES.items()}
        seconds: dict[str, list[float]] = {name: [] for name in shards}
        for number in range(-WARM_UP_ROUNDS, sizes.rounds):
            order = list(shards.items())
            for name, shard in order if number % 2 else reversed(order):
                spent = shard.push()
                if number >= 0:
                    seconds[name].append(spent)
        rounds = Rounds(seconds)
        for name in shards:
            report.add(name, "engine_us_per_push", [s * 1e6 for s in seconds[name]])
        for name, other in COMPARED.items():
            report.add(name, f"engine_time_vs_{other}", rounds.time_share(name, other))


class _Pushed:
    """A shard, and the pushes that it has had."""

    def __init__(self, stack: ExitStack, case: Case, sizes: Sizes) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = ps.ServiceConfig(
            memory=ps.MemoryConfig(ram_bytes=RAM_BYTES),
            disk=ps.DiskConfig(path=folder),
            performance=ps.PerformanceConfig(prepare_ttl_s=3600),
        )
        self._shard = Shard(0, config)
        stack.callback(self._shard.close)
        self._moving = case.moving
        self._writes = 0
        self._rng = np.random.default_rng(1)
        self._grads_ND = gradients(generator(), ROWS, DIM)
        self._rows = 10 * sizes.batch // case.tables
        for number in range(case.tables):
            self._shard.create_table(ps.TableConfig(name=f"t{number}", dim=DIM))
            for start in range(0, self._rows, ROWS * 100):
                ids_N = np.arange(start, min(start + ROWS * 100, self._rows))
                self._write(f"t{number}", ids_N, np.zeros((len(ids_N), DIM), np.float32))
        named = sizes.batch // 100
        for step in range(case.steps):
            ids_N = self._rng.choice(2 * self._rows, named, replace=False)
            self._shard.prepare(StepRef(WORKER, step), [TableIds("t0", ids_N)])

    def push(self) -> float:
        """Seconds of the engine's work for one of PUSHES pushes."""
        spent = 0.0
        for _ in range(PUSHES):
            ids_N = self._rng.choice(self._rows, ROWS, replace=False)
            if self._moving:
                self._shard.remove(self._next(), TableIds("t0", ids_N[:1]))
            before = self._busy_s()
            self._write("t0", ids_N, self._grads_ND)
            spent += self._busy_s() - before
        return spent / PUSHES

    def _write(self, table: str, ids_N: Ids, grads_ND: Sequence[Sequence[float]] | np.ndarray) -> None:
        with self._shard.look_ahead([TableIds(table, ids_N)]) as ahead:
            self._shard.push(self._next(), ahead, [Gradients(table, [np.asarray(grads_ND)])])

    def _busy_s(self) -> float:
        """When all that was asked for is done."""
        self._shard.engine.run(lambda: None)
        return self._shard.engine.busy_s

    def _next(self) -> WriteId:
        self._writes += 1
        return WriteId(WORKER, self._writes, 0)
