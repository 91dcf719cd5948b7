"""Training steps of a click model on flights, for `safety`: one trainer, which is this process, and one shard."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import ps
from benchmarks.problems.flights import Year
from ps.nn.prefetch import Prefetcher, PreparedBatch
from worker.train.trainer import Trainer

DIM = 16
STEPS = 25
"""Steps of a round."""
DEPTH = 2
DENSE_LR = 0.02


class Steps:
    """A model in training on one service: the year of flights, again and again."""

    def __init__(self, client: ps.Client, year: Year) -> None:
        source = year.source(0)
        names = dict.fromkeys(feature.table for feature in source.features)
        tables = [ps.TableConfig(name=name, dim=DIM, optimizer=ps.Adagrad(lr=year.row_lr)) for name in names]
        self._trainer = Trainer(client, source, tables, DENSE_LR, seed=0)
        self._years = repeat(lambda: Prefetcher(source.batches(year.batch), self._trainer.embeddings, DEPTH))
        self._batches: Iterator[PreparedBatch] = iter(())

    def train(self, _: object) -> None:
        """Trains one round of STEPS batches."""
        for _step in range(STEPS):
            self._trainer.step(self._next())

    def _next(self) -> PreparedBatch:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(next(self._years)())
            batch = next(self._batches)
        return batch
