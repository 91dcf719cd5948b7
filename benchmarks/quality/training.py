"""A click model in training, for benchmarks that compare whole training steps.

Criteo-shaped data of Meta's published skew, in one table; one shard process, and this one as the trainer. Before the
training the ids are pushed as often as data before would have, so that most of them exist and their frequencies are
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np

import ps
from benchmarks.harness.service import one_shard
from benchmarks.harness.sizes import Sizes
from ps.nn.prefetch import Prefetcher, PreparedBatch
from worker.data.synthetic import Synthetic
from worker.train.trainer import Trainer

BATCH, STEPS, TABLE = 2048, 8, "ids"
FILL_BATCH = 1 << 16


class Training:
    """One way to keep the table `TABLE`: its shard, its model, and its place in the data."""

    def __init__(
        self, service: ps.ServiceConfig, table: ps.TableConfig, source: Synthetic, depth: int | Literal["auto"]
    ) -> None:
        self._service, self._table, self._source, self._depth = service, table, source, depth
        self._stack = ExitStack()

    def __enter__(self) -> Training:
        with ExitStack() as stack:
            self.client, _ = stack.enter_context(one_shard(self._service))
            self._trainer = Trainer(self.client, self._source, [self._table], dense_lr=0.02, seed=0)
            self._stack = stack.pop_all()
        self._batches: Iterator[PreparedBatch] = iter(
            Prefetcher(self._source.batches(BATCH), self._trainer.embeddings, self._depth)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self, _: object) -> None:
        """Trains one round of STEPS batches."""
        for _ in range(STEPS):
            self._trainer.step(next(self._batches))

    def shard(self) -> dict[str, Any]:
        """Returns what the shard counts."""
        found: dict[str, Any] = self.client.stats()["shards"][0]
        return found


def source_of(sizes: Sizes) -> Synthetic:
    """Returns batches without end. There are twice as many ids as rows are filled in: half of the rarest have never
    been seen."""
    return Synthetic(rows=1 << 40, total_ids=2 * sizes.swap_rows, table=TABLE)


def fill(clients: Sequence[ps.Client], source: Synthetic, sizes: Sizes) -> None:
    """Pushes ids as often as they occur, with gradients of zero, until `swap_rows` of them exist with the first."""
    for batch in source.batches(FILL_BATCH):
        ids_N = np.concatenate([bags.ids.numpy() for bags in batch.sparse.values()])
        unique_U, counts_U = np.unique(ids_N, return_counts=True)
        zeros_UD = np.zeros((len(unique_U), sizes.dim), np.float32)
        for client in clients:
            client.prepare({TABLE: unique_U}, counts={TABLE: counts_U}).push({TABLE: zeros_UD})
        if clients[0].size(TABLE) >= sizes.swap_rows:
            return
