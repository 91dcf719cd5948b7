"""The reference model with its embeddings in the process: what a parameter server should reach too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from ps.nn.batch import Batch
from worker.data.source import Source
from worker.models.dlrm import DLRM
from worker.report.metrics import Progressive


@contextmanager
def one_thread() -> Iterator[None]:
    """On cores that are busy with other work, torch's threads wait for each other: ten times slower was measured."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def train(
    source: Source, *, dim: int = 16, batch_size: int = 512, lr: float = 0.05, dense_lr: float = 0.02
) -> Progressive:
    """One pass of predict-then-train with Adagrad, on one thread."""
    torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns until one says yes or no
    names = [feature.name for feature in source.features]
    known_N = np.unique(np.concatenate([_ids(batch, names).ravel() for batch in source.batches(65_536)]))
    model = DLRM(source.n_dense, len(names), dim, generator=torch.Generator().manual_seed(0))
    table = torch.nn.Embedding(len(known_N), dim, sparse=True)
    with torch.no_grad():
        table.weight.uniform_(-0.025, 0.025, generator=torch.Generator().manual_seed(1))
    optimizers = [torch.optim.Adagrad(model.parameters(), lr=dense_lr), torch.optim.Adagrad(table.parameters(), lr=lr)]
    metrics = Progressive()
    for batch in source.batches(batch_size):
        places_BF = torch.from_numpy(np.searchsorted(known_N, _ids(batch, names)))
        logits_B = model(batch.dense, table(places_BF))
        metrics.add(torch.sigmoid(logits_B.detach()).numpy(), batch.labels.numpy())
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits_B, batch.labels)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return metrics


def _ids(batch: Batch, names: list[str]) -> np.ndarray:
    return np.stack([batch.sparse[name].ids.numpy() for name in names], axis=1)
