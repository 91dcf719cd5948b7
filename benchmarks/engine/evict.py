"""How much accuracy is lost when RAM holds a fraction of the rows: eviction by importance (the default, and with a
short half-life) against LRU, LFU and no bound at all.

A click model learns from Criteo-shaped data whose popular ids change as time goes on, with `memory.ram_bytes` and no
disk; AUC is progressive, over the second half. Recency alone and frequency without decay are importance too, with other
weights. The shard's memory is sampled every 100 ms.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch

import ps
from benchmarks.engine.budget import watched
from benchmarks.harness.report import Report
from benchmarks.harness.service import one_shard
from benchmarks.harness.sizes import Sizes
from ps.nn.prefetch import Prefetcher
from worker.data.synthetic import Synthetic
from worker.train.trainer import Trainer

BATCH, DIM, TABLE = 1024, 64, "ids"
RAM_BYTES = 64 << 20
DRIFT = 0.5

NEVER = 10**12
ORDERS = {
    "unlimited": ps.TableConfig(name=TABLE, dim=DIM),
    "default": ps.TableConfig(name=TABLE, dim=DIM),
    "importance": ps.TableConfig(name=TABLE, dim=DIM, half_life_pushes=150),
    "lru": ps.TableConfig(name=TABLE, dim=DIM, importance=ps.Importance(frequency=0, recency=1)),
    "lfu": ps.TableConfig(name=TABLE, dim=DIM, half_life_pushes=NEVER),
}


def run(report: Report, sizes: Sizes) -> None:
    """Trains `evict_samples` samples with each order."""
    torch.set_num_threads(1)
    rows = {case: _train(report, case, table, sizes) for case, table in ORDERS.items()}
    report.add("unlimited", "rows_vs_bounded", [rows["unlimited"] / max(rows["default"], 1)])


def _train(report: Report, case: str, table: ps.TableConfig, sizes: Sizes) -> int:
    source = Synthetic(rows=sizes.evict_samples, total_ids=sizes.evict_ids, drift=DRIFT, table=TABLE)
    ram_bytes = None if case == "unlimited" else RAM_BYTES
    with ExitStack() as stack:
        client, server = stack.enter_context(
            one_shard(
                ps.ServiceConfig(memory=ps.MemoryConfig(ram_bytes=ram_bytes), watching=ps.WatchingConfig(metrics=False))
            )
        )
        memory = stack.enter_context(watched(server.pid))
        trainer = Trainer(client, source, [table], dense_lr=0.02, seed=0)
        for batch in Prefetcher(source.batches(BATCH), trainer.embeddings, 1):
            trainer.step(batch)
        figures = client.stats()["shards"][0]["tables"][TABLE]
        rows = int(sum(figures["rows"].values()))
        report.add(case, "auc", [trainer.metrics.auc(slice(sizes.evict_samples // 2, None))])
        report.add(case, "rows", [float(rows)])
        report.add(case, "rows_evicted", [float(figures["rows_evicted"])])
        if ram_bytes is not None:
            report.add(case, "peak_rss_vs_ram_bytes", [memory.peak / ram_bytes])
        return rows
