"""Compares training with part of the rows on disk with the same training with all of them in RAM.

All variants train the same batches in turn, round by round; see `benchmarks.quality.training`.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

import ps
from benchmarks.harness.measure import WARM_UP_ROUNDS, Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.quality.training import BATCH, STEPS, TABLE, Training, fill, source_of


@dataclass(frozen=True)
class Variant:
    """Where the rows live, and how far ahead they are prepared."""

    swap_fraction: float
    depth: int = 2


VARIANTS = {
    "ram": Variant(0.0),
    "half_on_disk": Variant(0.5),
    "half_unprepared": Variant(0.5, depth=0),
    "ram_1_37": Variant(36 / 37),
}


def run(report: Report, sizes: Sizes) -> None:
    """Trains `swap_rows` rows in one table; a round is STEPS batches for each variant."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        runs = {name: _Run(stack, variant, sizes) for name, variant in VARIANTS.items()}
        fill([run.training.client for run in runs.values()], source_of(sizes), sizes)
        rounds = interleave(sizes.rounds, {name: Contender(run.train) for name, run in runs.items()})
        for name, run in runs.items():
            report.add(name, "samples_per_s", rounds.per_second(name, STEPS * BATCH))
            if name != "ram":
                report.add(name, "speed_vs_ram", rounds.speed_ratio(name, "ram"))
                run.tell(report, name)


class _Run:
    """One variant in training, and its misses since the warm-up."""

    def __init__(self, stack: ExitStack, variant: Variant, sizes: Sizes) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        service = ps.ServiceConfig(
            disk=ps.DiskConfig(path=folder if variant.swap_fraction > 0 else None),
            watching=ps.WatchingConfig(metrics=False),
        )
        table = ps.TableConfig(name=TABLE, dim=sizes.dim, swap_fraction=variant.swap_fraction)
        self.training = stack.enter_context(Training(service, table, source_of(sizes), variant.depth))
        self._rounds = self._misses = 0

    def train(self, _: object) -> None:
        """Trains one round."""
        self._rounds += 1
        if self._rounds == WARM_UP_ROUNDS + 1:
            self._misses = self.training.shard()["rows_late"]
        self.training.train(None)

    def tell(self, report: Report, name: str) -> None:
        """Reports what the shard has counted."""
        shard = self.training.shard()
        rows = shard["tables"][TABLE]["rows"]
        report.add(name, "rows_in_ram", [float(rows["hot"])])
        report.add(name, "rows_on_disk", [float(rows["disk"])])
        report.add(name, "critical_path_misses", [float(shard["rows_late"] - self._misses)])
