"""Counts the bytes of steps with long bags, pooled by the trainer and by the shards; a part of `wirebytes`.

26 features, each of a table of its own, on two shards; the ids of a feature have the published skew in every batch
(`worker.data.skew`). Bags of one length, and of all from 1 to 100. Counted are the messages of prepare, pull and push,
both ways, fp32, nothing held back. A step is pulled and pushed without a model: what the rows are changes no byte.

bytes_saved_factor   pooled by the trainer / by the shards: below 1 where the trainer's way is fewer
auto_saved_factor    pooled by the trainer / as `Feature(pooled="auto")` decides, table by table
dct_saved_factor     pooled by the trainer / by the shards with thresholds: 20 % of the elements of sums, and 5 % of the
                     bags' gradients and of the rows' residuals; gradients are random
"""

from __future__ import annotations

from statistics import mean

import numpy as np
import torch

import ps
from benchmarks.harness.report import Report
from benchmarks.harness.service import shards
from benchmarks.harness.sizes import Sizes
from benchmarks.wire.clicks import FEATURES
from benchmarks.wire.trainer import table
from ps.nn.batch import Bags
from ps.nn.embedding.collection import EmbeddingBagCollection
from ps.nn.feature import Feature, Pooled
from ps.nn.sparsify.thresholds import TopK
from worker.data.skew import Popularity
from worker.data.synthetic import spread_ids

SHARDS = 2
LENGTHS = (1, 2, 3, 5, 10, 30, 100)
LONGEST = 100
METHODS = ("Prepare", "Pull", "Push")
WAYS: tuple[Pooled, ...] = ("trainer", "shard", "auto")
SPARSIFY, MASK_SUMS = TopK(density=0.05, hold=None), TopK(density=0.2, by="elements")
WARM_UP, MEASURED = 5, 3
"""Steps before the counted ones and counted steps, with thresholds. Sums are pulled whole in the 1st, 2nd, 3rd and
5th."""


def run(report: Report, sizes: Sizes) -> None:
    """Measures all lengths."""
    samples = max(8, sizes.batch // 400)
    with shards(SHARDS) as client:
        tables = [table(name, sizes.dim) for name in FEATURES]
        layers = {
            way: EmbeddingBagCollection(client, tables, [Feature(name, name, pooled=way) for name in FEATURES])
            for way in WAYS
        }
        fixed = {str(length): np.full(samples, length) for length in LENGTHS}
        for case, lengths_B in {**fixed, "1_to_100": np.arange(samples) % LONGEST + 1}.items():
            batch = _batch(sizes.wire_ids, lengths_B)
            moved = {way: _bytes(client, layers[way], batch) for way in WAYS}
            ids = sum(len(np.unique(bags.ids)) for bags in batch.values())
            report.add(f"pooled_{case}", "unique_ids_per_bag", ids / (len(FEATURES) * samples))
            report.add(f"pooled_{case}", "trainer_bytes", moved["trainer"])
            report.add(f"pooled_{case}", "bytes_saved_factor", moved["trainer"] / moved["shard"])
            report.add(f"pooled_{case}", "auto_saved_factor", moved["trainer"] / moved["auto"])
            dct = EmbeddingBagCollection(
                client, tables, layers["shard"].features, sparsify=SPARSIFY, mask_sums=MASK_SUMS
            )
            thresholded = [_bytes(client, dct, batch) for _ in range(WARM_UP + MEASURED)][WARM_UP:]
            report.add(f"pooled_{case}", "dct_saved_factor", moved["trainer"] / mean(thresholded))


def _batch(total_ids: int, lengths_B: np.ndarray) -> dict[str, Bags]:
    rng, draws = np.random.default_rng(len(lengths_B)), int(lengths_B.sum())
    offsets_B = torch.from_numpy(np.cumsum(lengths_B) - lengths_B)
    batch = {}
    for seed, (name, size) in enumerate(zip(FEATURES, spread_ids(total_ids), strict=True)):
        popularity = Popularity(size, draws, seed)
        batch[name] = Bags(torch.from_numpy(popularity.ids(popularity.ranks(rng, draws))), offsets_B)
    return batch


def _bytes(client: ps.Client, layer: EmbeddingBagCollection, batch: dict[str, Bags]) -> int:
    """Returns the bytes of one step's messages."""
    before = _moved(client)
    pooled_BFD = layer(batch)
    (pooled_BFD * torch.randn(pooled_BFD.shape)).sum().backward()
    layer.step()
    return _moved(client) - before


def _moved(client: ps.Client) -> int:
    traffic = client.traffic()
    return sum(traffic[way].get(method, 0) for way in ("sent_bytes", "received_bytes") for method in METHODS)
