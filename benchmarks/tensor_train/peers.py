"""Tensor-train rows in plain torch, with which `ttspeed` compares. Autograd computes gradients, into dense cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from ps.tensor_train.shape import TTShape

Forward = Callable[["TorchCores", torch.Tensor], torch.Tensor]
"""A function from row numbers, int64 [n], to rows [n, D]."""

MOST_BYTES = 2 << 30
"""Bytes of intermediate values at most: larger batches are cut."""
IN_CACHE = 500
"""Ids at once whose slices stay in a core's cache: `einsum` is then several times as fast as with all at once."""
PRODUCTS_IN_CACHE = 4000
"""Ids at once whose products stay in a core's cache, for the forward pass of `grouped`, which copies products only.
Backward is fastest with all at once."""


class TorchCores:
    """Three cores as parameters, [p, R * q * S] each; the slices lie as in `TTShape.cores`."""

    def __init__(self, shape: TTShape, arrays: Sequence[npt.NDArray[np.float32]], lr: float) -> None:
        self.shape = shape
        self.cores = [torch.from_numpy(array.reshape(len(array), -1).copy()).requires_grad_() for array in arrays]
        self._optimizer = torch.optim.SGD(self.cores, lr=lr)

    def digits(self, index_N: torch.Tensor) -> list[torch.Tensor]:
        """Returns the number of the slice of each core."""
        _, p2, p3 = self.shape.p
        return [index_N // (p2 * p3), index_N // p3 % p2, index_N % p3]

    def lookup(self, forward: Forward, index_N: torch.Tensor, chunk: int, out_ND: torch.Tensor) -> None:
        """Looks up the rows, `chunk` ids at once."""
        with torch.no_grad():
            for part_N, part_ND in zip(torch.split(index_N, chunk), torch.split(out_ND, chunk), strict=True):
                part_ND.copy_(forward(self, part_N))

    def train(self, forward: Forward, index_N: torch.Tensor, chunk: int, grads_ND: torch.Tensor) -> None:
        """Runs forward, backward and a step of SGD."""
        self._optimizer.zero_grad()
        for part_N, part_ND in zip(torch.split(index_N, chunk), torch.split(grads_ND, chunk), strict=True):
            forward(self, part_N).backward(part_ND)  # type: ignore[no-untyped-call]
        self._optimizer.step()


def einsum(cores: TorchCores, index_N: torch.Tensor) -> torch.Tensor:
    """Multiplies every id's own slices, the straightforward way."""
    slices = [
        functional.embedding(digit_N, core_PJ).view(-1, before, q, after)
        for digit_N, core_PJ, (_, before, q, after) in zip(
            cores.digits(index_N), cores.cores, cores.shape.cores, strict=True
        )
    ]
    return torch.einsum("nar,nrbs,nsc->nabc", slices[0][:, 0], slices[1], slices[2][..., 0]).flatten(1)


def grouped(cores: TorchCores, index_N: torch.Tensor, chunk: int) -> torch.Tensor:
    """Multiplies the first two cores once for all ids that share them, by one large product for each middle slice; then
    a bmm with the last core, `chunk` ids at once."""
    (p1, _, a, r), (p2, _, b, s), (_, _, c, _) = cores.shape.cores
    left_N, middle_N, right_N = cores.digits(index_N)
    pair_P, pair_N = torch.unique(middle_N * p1 + left_N, return_inverse=True)
    left_PJ = functional.embedding(pair_P % p1, cores.cores[0])
    counts = torch.bincount(pair_P // p1, minlength=p2).tolist()
    middle_MRJ = cores.cores[1].view(p2, r, b * s)
    products = [
        left_KJ.reshape(-1, r) @ middle_RJ
        for left_KJ, middle_RJ in zip(torch.split(left_PJ, counts), middle_MRJ.unbind(), strict=True)
        if len(left_KJ)
    ]
    product_PJ = torch.cat(products).view(len(pair_P), a * b * s)
    rows = [
        torch.bmm(
            functional.embedding(pair_K, product_PJ).view(-1, a * b, s),
            functional.embedding(right_K, cores.cores[2]).view(-1, s, c),
        ).flatten(1)
        for pair_K, right_K in zip(torch.split(pair_N, chunk), torch.split(right_N, chunk), strict=True)
    ]
    return torch.cat(rows)


def whole_batch(shape: TTShape, batch: int) -> int:
    """Returns how many ids einsum has room for at once: their slices, products and rows, and the gradients of all of
    them."""
    (_, _, a, _), (_, _, b, s), _ = shape.cores
    floats = sum(shape.slice_sizes) + a * b * s + shape.dim
    return max(min(batch, MOST_BYTES // (2 * 4 * floats)), 1)
