"""What is lost when there is room for a twentieth of the rows: eviction by importance against LRU and LFU.

A click model learns from Criteo-shaped data whose popular ids change as time goes on; AUC is progressive, over the
second half. Recency and frequency are importance too, with another half-life: of a few pushes, and endless.
"""

from __future__ import annotations

import torch

import ps
from benchmarks.measure import Report, Sizes
from worker.data.synthetic import Synthetic
from worker.prefetch import Prefetcher
from worker.train import Trainer

BATCH, DIM, TABLE = 1024, 16, "ids"
GROWTH = 20
"""Rows that there would be, for each that there is room for."""
DRIFT = 0.5

HALF_LIVES = {"importance": 2_000, "lru": 64, "lfu": 10**12}
"""Pushes. A row that is touched counts as much as everything before the last 64 pushes: the order is that of the last
touch, but for rows touched in the same few pushes."""


def run(report: Report, sizes: Sizes) -> None:
    """Trains `evict_samples` rows without a bound, then with one, by each order."""
    torch.set_num_threads(1)
    rows = _train(report, "unlimited", ps.TableConfig(name=TABLE, dim=DIM), sizes)
    most = max(rows // GROWTH, 1)
    for case, half_life in HALF_LIVES.items():
        table = ps.TableConfig(name=TABLE, dim=DIM, half_life_pushes=half_life, max_rows_per_shard=most)
        _train(report, case, table, sizes)


def _train(report: Report, case: str, table: ps.TableConfig, sizes: Sizes) -> int:
    source = Synthetic(rows=sizes.evict_samples, total_ids=sizes.evict_ids, drift=DRIFT, table=TABLE)
    with ps.connect("inproc:") as client:
        client.create_table(table)
        trainer = Trainer(client, source, [table], dense_lr=0.02, seed=0)
        for batch in Prefetcher(source.batches(BATCH), trainer.embeddings, 1):
            trainer.step(batch)
        figures = client.stats()["shards"][0]["tables"][TABLE]
        report.add(case, "auc", [trainer.metrics.auc(slice(sizes.evict_samples // 2, None))])
        report.add(case, "rows", [float(sum(figures["rows"].values()))])
        report.add(case, "rows_evicted", [float(figures["rows_evicted"])])
        return int(sum(figures["rows"].values()))
