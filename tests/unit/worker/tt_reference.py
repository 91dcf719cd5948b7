"""The whole table by einsum and autograd: what a TensorTrainEmbeddingBag must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch.nn.functional import embedding_bag

import ps
from ps.nn import TensorTrainEmbeddingBag
from ps.tensor_train.shape import TTShape

OPTIMIZERS = {
    "sgd": ps.SGD(lr=0.3),
    "adagrad": ps.Adagrad(lr=0.1, eps=1e-6, initial_accumulator=0.1),
    "rowwise_adagrad": ps.RowwiseAdagrad(lr=0.1, eps=1e-6, initial_accumulator=0.2),
}


def cores_of(module: TensorTrainEmbeddingBag) -> list[torch.Tensor]:
    return [getattr(module, f"core{k}").detach() for k in range(len(module.shape.p))]


def full_table(shape: TTShape, cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """[product of p, D] of cores as the module holds them, without state."""
    table_PJR = torch.ones(1, 1, 1, dtype=cores[0].dtype)
    for k, (p, before, q, after) in enumerate(shape.cores):
        last = k == len(cores) - 1
        core = cores[k].reshape(p, q, before).transpose(1, 2) if last else cores[k]
        product = torch.einsum("xjr,yrqs->xyjqs", table_PJR, core.reshape(p, before, q, after))
        table_PJR = product.reshape(len(table_PJR) * p, -1, after)
    return table_PJR.squeeze(2)


def expected(module, cores, bags: Bags) -> torch.Tensor:
    table = full_table(module.shape, cores)
    weights = None if bags.weights is None else bags.weights.to(table.dtype)
    return embedding_bag(bags.indices, table, bags.offsets, mode=bags.mode, per_sample_weights=weights)


@dataclass
class Bags:
    indices: torch.Tensor
    offsets: torch.Tensor
    weights: torch.Tensor | None
    mode: str


@dataclass
class Case:
    """Arguments of a module and a batch."""

    arguments: dict
    bags: Bags

    def module(self, **more) -> TensorTrainEmbeddingBag:
        found = TensorTrainEmbeddingBag(**self.arguments, mode=self.bags.mode, **more)
        enlarge(found)
        return found

    def __call__(self, module) -> torch.Tensor:
        return module(self.bags.indices, self.bags.offsets, self.bags.weights)

    @property
    def out_grads(self) -> torch.Tensor:
        torch.manual_seed(5)
        return torch.randn(len(self.bags.offsets), self.arguments["embedding_dim"])


def enlarge(module: TensorTrainEmbeddingBag) -> None:
    """Entries of rows of about 1, by the core that has their variance: as they begin, differences would drown in any
    tolerance."""
    large = len(module.shape.p) - 2
    cores_of(module)[large][:, : module.shape.slice_sizes[large]] *= float(3 * module.num_embeddings) ** 0.5


@st.composite
def cases(draw) -> Case:
    cores = draw(st.integers(2, 4))
    p, q = ([draw(st.integers(1, most)) for _ in range(cores)] for most in (5, 3))
    ranks = [draw(st.integers(1, 5)) for _ in range(cores - 1)]
    rows, dim = int(torch.tensor(p).prod()), int(torch.tensor(q).prod())
    rows -= draw(st.integers(0, (rows - 1) // 2))
    indices = draw(st.lists(st.integers(0, rows - 1), max_size=30))
    offsets = [0, *sorted(draw(st.lists(st.integers(0, len(indices)), max_size=6)))]
    mode = draw(st.sampled_from(["sum", "mean"]))
    weights = None
    if mode == "sum" and draw(st.booleans()):
        weights = torch.tensor(draw(st.lists(st.floats(-2, 2, width=32), min_size=len(indices), max_size=len(indices))))
    arguments = {
        "num_embeddings": rows,
        "embedding_dim": dim,
        "tt_ranks": ranks,
        "tt_p_shapes": p,
        "tt_q_shapes": q,
        "seed": draw(st.integers(0, 99)),
    }
    return Case(arguments, Bags(torch.tensor(indices, dtype=torch.int64), torch.tensor(offsets), weights, mode))
