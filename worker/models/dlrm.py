"""DLRM, the reference click model (Naumov et al. 2019, arXiv:1906.00091), without its embeddings.

The embeddings live on the parameter server; this is the dense part, which is small enough to be replicated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from ps.errors import DimensionMismatch, InvalidArgument


class DLRM(nn.Module):
    """A bottom MLP over the dense input, all pairwise dot products with the embeddings, and a top MLP.

    n_dense: width of the dense input. n_features: sparse features F. dim: embedding dim D. bottom, top: widths of the
    hidden layers; the bottom MLP ends in D, the top MLP in one logit. generator: the source of the initial weights;
    None takes torch's global one. Equal seeds give equal weights. Raises `InvalidArgument` for a width below 1.
    """

    def __init__(
        self,
        n_dense: int,
        n_features: int,
        dim: int,
        *,
        bottom: Sequence[int] = (64,),
        top: Sequence[int] = (64,),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(n_dense, n_features, dim, *bottom, *top) < 1:
            raise InvalidArgument(f"{n_dense=} {n_features=} {dim=} {bottom=} {top=}: every width must be 1 or more")
        self.n_features, self.dim = n_features, dim
        vectors = n_features + 1  # the embeddings and the bottom MLP's output
        rows, columns = torch.tril_indices(vectors, vectors, offset=-1)
        self.pairs: torch.Tensor
        self.register_buffer("pairs", rows * vectors + columns, persistent=False)
        self.bottom = _mlp([n_dense, *bottom, dim], generator)
        self.bottom.append(nn.ReLU())
        self.top = _mlp([dim + len(self.pairs), *top, 1], generator)

    def forward(self, dense: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        """Returns logits, float32 [B], of the dense input, float32 [B, n_dense], and pooled rows, float32 [B, F, D],
        with the features always in the same order.

        Raises `DimensionMismatch` if F or D are not those of the model.
        """
        if embeddings.shape[1:] != (self.n_features, self.dim):
            wanted = [len(dense), self.n_features, self.dim]
            raise DimensionMismatch(f"embeddings are {list(embeddings.shape)}, the model takes {wanted}")
        dense_BD = self.bottom(dense)
        vectors_BVD = torch.cat([dense_BD.unsqueeze(1), embeddings], dim=1)
        products_BVV = torch.bmm(vectors_BVD, vectors_BVD.transpose(1, 2))
        products_BP = products_BVV.flatten(1).index_select(1, self.pairs)
        logits_B1: torch.Tensor = self.top(torch.cat([dense_BD, products_BP], dim=1))
        return logits_B1.squeeze(1)


def _mlp(widths: Sequence[int], generator: torch.Generator | None) -> nn.Sequential:
    """Returns linear layers with ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [_linear(fan_in, fan_out, generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _linear(fan_in: int, fan_out: int, generator: torch.Generator | None) -> nn.Linear:
    """Returns a layer with Gaussian weights as in the authors' code: std sqrt(2 / (in + out)), bias std sqrt(1 /
    out)."""
    linear = nn.Linear(fan_in, fan_out)
    with torch.no_grad():
        linear.weight.normal_(0.0, math.sqrt(2.0 / (fan_in + fan_out)), generator=generator)
        linear.bias.normal_(0.0, math.sqrt(1.0 / fan_out), generator=generator)
    return linear
