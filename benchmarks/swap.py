"""Training with part of the rows on disk against the same training with all of them in RAM.

A click model on Criteo-shaped data of Meta's published skew, one shard process and this one as the trainer. All
variants train the same batches in turn, round by round. Before that the ids are pushed as often as data before would
have, so that most of them exist and their frequencies are known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ps
from benchmarks.measure import WARM_UP_ROUNDS, Contender, Report, Sizes, interleave
from benchmarks.service import one_shard
from worker.data.synthetic import Synthetic
from worker.prefetch import Prefetcher, PreparedBatch
from worker.train import Trainer

BATCH, STEPS, TABLE = 2048, 8, "ids"
FILL_BATCH = 1 << 16


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
    """`swap_rows` rows in one table; a round is STEPS batches for each variant."""
    torch.set_num_threads(1)
    with ExitStack() as stack:
        runs = {name: stack.enter_context(_Run(variant, sizes)) for name, variant in VARIANTS.items()}
        _fill([run.client for run in runs.values()], _source(sizes), sizes)
        rounds = interleave(sizes.rounds, {name: Contender(run.train) for name, run in runs.items()})
        for name, run in runs.items():
            report.add(name, "samples_per_s", rounds.per_second(name, STEPS * BATCH))
            if name != "ram":
                report.add(name, "speed_vs_ram", rounds.speed_ratio(name, "ram"))
                run.tell(report, name)


class _Run:
    """One variant: its shard, its model, its place in the data."""

    def __init__(self, variant: Variant, sizes: Sizes) -> None:
        self._variant = variant
        self._stack = ExitStack()
        self._sizes = sizes
        self._rounds = self._misses = 0

    def __enter__(self) -> _Run:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        on_disk = self._variant.swap_fraction > 0
        self.client, _ = self._stack.enter_context(
            one_shard(ps.ServiceConfig(disk_path=folder if on_disk else None, metrics=False))
        )
        source = _source(self._sizes)
        table = ps.TableConfig(name=TABLE, dim=self._sizes.dim, swap_fraction=self._variant.swap_fraction)
        self._trainer = Trainer(self.client, source, [table], dense_lr=0.02, seed=0)
        self._batches: Iterator[PreparedBatch] = iter(
            Prefetcher(source.batches(BATCH), self._trainer.embeddings, self._variant.depth)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self, _: object) -> None:
        """One round."""
        self._rounds += 1
        if self._rounds == WARM_UP_ROUNDS + 1:
            self._misses = self._shard()["rows_late"]
        for _ in range(STEPS):
            self._trainer.step(next(self._batches))

    def tell(self, report: Report, name: str) -> None:
        """What the shard counted."""
        shard = self._shard()
        table = shard["tables"][TABLE]
        report.add(name, "rows_in_ram", [float(table["rows"]["hot"])])
        report.add(name, "rows_on_disk", [float(table["rows"]["disk"])])
        report.add(name, "critical_path_misses", [float(shard["rows_late"] - self._misses)])

    def _shard(self) -> dict[str, Any]:
        shard: dict[str, Any] = self.client.stats()["shards"][0]
        return shard


def _source(sizes: Sizes) -> Synthetic:
    return Synthetic(rows=1 << 40, total_ids=2 * sizes.swap_rows, table=TABLE)


def _fill(clients: Sequence[ps.Client], source: Synthetic, sizes: Sizes) -> None:
    """Pushes ids as often as they occur, with gradients of zero, until `swap_rows` of them exist."""
    for batch in source.batches(FILL_BATCH):
        ids_N = np.concatenate([bags.ids.numpy() for bags in batch.sparse.values()])
        unique_U, counts_U = np.unique(ids_N, return_counts=True)
        zeros_UD = np.zeros((len(unique_U), sizes.dim), np.float32)
        for client in clients:
            client.prepare({TABLE: unique_U}, counts={TABLE: counts_U}).push({TABLE: zeros_UD})
        if clients[0].size(TABLE) >= sizes.swap_rows:
            return
