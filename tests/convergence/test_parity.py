"""Training through the service is training in one process: the same model, the same data, the same losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

import ps
from ps.nn import Bags, Batch, EmbeddingBagCollection, Feature, Prefetcher
from ps.nn.feature import Pooled
from tests.clusters import LoopbackCluster
from worker.models.dlrm import DLRM

STEPS = 200
BATCH = 64
IDS = {"a": 200, "b": 300}
DIM = 8
FEATURES = (Feature("one_hot", "a"), Feature("bag_mean", "a", "mean"), Feature("bag_weighted", "b"))
LR = {"sgd": 0.5, "adagrad": 0.1, "rowwise_adagrad": 0.1, "adam": 0.01}
POOLED: list[tuple[str, Pooled]] = [("rowwise_adagrad", "shard"), ("adam", "auto")]


class RowwiseAdagrad(torch.optim.Optimizer):
    """h += mean(g*g) of the row, in torch: torch itself has no row-wise Adagrad."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                grad = weight.grad.coalesce()
                rows, values = grad.indices()[0], grad.values()
                h = self.state[weight].setdefault("h", torch.zeros(len(weight)))
                h[rows] += values.square().mean(1)
                weight[rows] -= group["lr"] * values / (h[rows].sqrt() + 1e-8).unsqueeze(1)


OPTIMIZERS: dict[str, tuple[Callable[..., object], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": (ps.SGD, torch.optim.SGD),
    "adagrad": (ps.Adagrad, torch.optim.Adagrad),
    "rowwise_adagrad": (ps.RowwiseAdagrad, RowwiseAdagrad),
    "adam": (ps.Adam, torch.optim.SparseAdam),
}


def batches() -> Iterator[Batch]:
    """Random bags, some of them empty, with ids that repeat inside a bag, a batch and between features."""
    rng = np.random.default_rng(7)
    for _ in range(STEPS):
        sparse = {"one_hot": Bags(torch.from_numpy(rng.integers(0, IDS["a"], BATCH)), torch.arange(BATCH))}
        for name, table in (("bag_mean", "a"), ("bag_weighted", "b")):
            lengths = rng.integers(0, 5, BATCH)
            ids = torch.from_numpy(rng.integers(0, IDS[table], int(lengths.sum())))
            weights = torch.from_numpy(rng.random(len(ids), np.float32)) if name == "bag_weighted" else None
            sparse[name] = Bags(ids, torch.from_numpy(np.cumsum(lengths) - lengths), weights)
        labels = torch.from_numpy((rng.random(BATCH) < 0.3).astype(np.float32))
        yield Batch(torch.from_numpy(rng.standard_normal((BATCH, 4), np.float32)), sparse, labels)


def dense_model() -> tuple[DLRM, torch.optim.Optimizer]:
    model = DLRM(4, len(FEATURES), DIM, generator=torch.Generator().manual_seed(3))
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def train_in_process(weights: Mapping[str, torch.Tensor], kind: str) -> list[float]:
    tables = {name: torch.nn.Parameter(weight.clone()) for name, weight in weights.items()}
    optimizer = OPTIMIZERS[kind][1](list(tables.values()), lr=LR[kind])
    model, dense_optimizer = dense_model()
    losses = []
    for batch in batches():
        pooled = []
        for feature in FEATURES:
            bags = batch.sparse[feature.name]
            pooled.append(
                functional.embedding_bag(
                    bags.ids,
                    tables[feature.table],
                    bags.offsets,
                    mode=feature.pooling,
                    sparse=True,
                    per_sample_weights=bags.weights,
                )
            )
        logits = model(batch.dense, torch.stack(pooled, 1))
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        for each in (optimizer, dense_optimizer):
            each.zero_grad()
        loss.backward()
        for each in (optimizer, dense_optimizer):
            each.step()
        losses.append(float(loss.detach()))
    return losses


def train_with_service(client: ps.Client, configs: list[ps.TableConfig], pooled: Pooled) -> list[float]:
    features = [replace(feature, pooled=pooled) for feature in FEATURES]
    embeddings = EmbeddingBagCollection(client, configs, features)
    model, dense_optimizer = dense_model()
    losses = []
    for batch in Prefetcher(batches(), embeddings, depth=2):
        logits = model(batch.dense, embeddings(batch.sparse))
        loss = functional.binary_cross_entropy_with_logits(logits, batch.labels)
        dense_optimizer.zero_grad()
        loss.backward()
        dense_optimizer.step()
        embeddings.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(("kind", "pooled"), [*((kind, "trainer") for kind in OPTIMIZERS), *POOLED])
def test_losses_equal_those_of_embedding_bag_in_one_process(kind: str, pooled: Pooled) -> None:
    """Pooled by the shards too: table "a", since "b" has weights."""
    torch.sparse.check_sparse_tensor_invariants.disable()  # torch warns until one says yes or no
    configs = [
        ps.TableConfig(name=name, dim=DIM, optimizer=OPTIMIZERS[kind][0](lr=LR[kind]), initializer=ps.Normal(std=0.3))
        for name in IDS
    ]
    with LoopbackCluster(shards=2) as cluster, ps.connect(cluster.address) as client:
        for config in configs:
            client.create_table(config)
        weights = {name: client.pull(name, torch.arange(n)) for name, n in IDS.items()}
        expected = train_in_process(weights, kind)
        found = train_with_service(client, configs, pooled)
        assert client.size("a") == IDS["a"]
    assert expected[-1] != pytest.approx(expected[0], abs=1e-3), "nothing was learnt: the comparison would be idle"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
