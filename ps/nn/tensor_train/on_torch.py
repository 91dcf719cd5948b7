"""Tensor-train rows by torch's batched matrix products, for a GPU. So far it has been run on CPU tensors only.

Rows are sorted; those that begin alike (the same slices of the first cores) are then neighbours, and the product of
these slices is computed once for all of them, core after core: Q_k floats by rank R, [prefixes, Q_k, R].

It is deterministic on every device: gradients of a slice are summed in the order of the rows, by sorting and
`torch.segment_reduce`, which uses no atomic additions. Another device or version of torch may round otherwise. Memory:
blocks of rows hold what lies between the cores below about a GiB each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ps.config import CoreOptimizer
from ps.nn.tensor_train.on_numba import NumbaCores
from ps.tensor_train.rates import core_optimizers
from ps.tensor_train.shape import TTShape

SliceUpdate = Callable[[Tensor, Tensor], None]
"""update(rows_NW, grads_NJ) changes the rows in place."""

BLOCK_FLOATS = 1 << 27
"""How many floats the largest array of a block may have."""


@dataclass(frozen=True)
class Level:
    """The products of the first k cores, for the prefixes of row numbers that occur, sorted."""

    parent_F: Tensor
    """The product of the level before that each product is made of."""
    lengths_G: Tensor
    """How many products are made of each product of the level before."""
    digit_F: Tensor
    """The slice of this level's core that each product is made of."""


class TorchCores:
    """The arithmetic of one table in torch; `ps.nn.tensor_train.rows.Arithmetic` says what each method does."""

    def __init__(self, shape: TTShape, tensors: Sequence[Tensor], optimizer: CoreOptimizer | None) -> None:
        """tensors: float32 [p, slice + state] each, read and written in place, as `ps.tensor_train.cores` lays them
        out. Without an optimizer they have no state, and `apply` must not be called."""
        self._shape = shape
        self._tensors = [tensor.detach() for tensor in tensors]
        self._optimizer = optimizer
        optimizers = [None] * len(shape.p) if optimizer is None else core_optimizers(optimizer, shape)
        self._updates = [_update_of(one) for one in optimizers]
        self._block = max(BLOCK_FLOATS // max(*shape.slice_sizes, shape.dim * max(shape.ranks)), 1)

    def unique(self, index_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (unique [u] rising, the position of each index among them [n], how often each occurs [u]); int64."""
        return torch.unique(index_N, return_inverse=True, return_counts=True)  # type: ignore[no-any-return]

    def lookup(self, index_U: Tensor) -> Tensor:
        """Returns rows [u, D]."""
        rows_UD = self._tensors[0].new_empty((len(index_U), self._shape.dim))
        for index_B, order_B in self._blocks(index_U):
            rows_UD[order_B] = self._products(self._levels(index_B))[-1].flatten(1)
        return rows_UD

    def gradients(self, index_U: Tensor, grads_UD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns for each core the slices that these rows have [t] and the gradients of those slices [t, slice]."""
        sums = [tensor.new_zeros((len(tensor), size)) for tensor, size in self._sized()]
        occurs = [torch.zeros(len(tensor), dtype=torch.bool, device=tensor.device) for tensor in self._tensors]
        for index_B, order_B in self._blocks(index_U):
            levels = self._levels(index_B)
            for k, grads_FJ in enumerate(self._backward(levels, grads_UD[order_B])):
                slices_T, grads_TJ = _sum_by(levels[k].digit_F, grads_FJ)
                sums[k][slices_T] += grads_TJ
                occurs[k][slices_T] = True
        found = []
        for sum_PJ, occurs_P in zip(sums, occurs, strict=True):
            slices_T = occurs_P.nonzero().squeeze(1)
            found.append((slices_T, sum_PJ[slices_T]))
        return found

    def apply(self, index_U: Tensor, grads_UD: Tensor) -> None:
        """Makes a step of the optimizer by the gradients of rows."""
        for tensor_PW, update, found in zip(
            self._tensors, self._updates, self.gradients(index_U, grads_UD), strict=True
        ):
            _apply(update, tensor_PW, *found)

    def apply_dense(self, rows_CW: Tensor, slots_T: Tensor, grads_TD: Tensor) -> None:
        """Makes a step of the optimizer for rows [c, value + state]; slots unique."""
        _apply(_update_of(self._optimizer), rows_CW, slots_T, grads_TD)

    def fold(self, index_U: Tensor, rows_UD: Tensor, tolerance: float) -> Tensor:
        """Moves the cores towards these rows; returns the relative error of each row after that, [u]. It runs on the
        CPU, on copies of the cores, because it is called seldom."""
        values = [tensor[:, :size].cpu().contiguous() for tensor, size in self._sized()]
        errors_U = NumbaCores(self._shape, values, None).fold(index_U.cpu(), rows_UD.cpu(), tolerance)
        for (tensor, size), value_PJ in zip(self._sized(), values, strict=True):
            tensor[:, :size] = value_PJ.to(tensor.device)
        return errors_U.to(index_U.device)

    def _sized(self) -> list[tuple[Tensor, int]]:
        return list(zip(self._tensors, self._shape.slice_sizes, strict=True))

    def _blocks(self, index_U: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns blocks of (row numbers rising, their positions in index_U); none if there are no rows."""
        if not len(index_U):
            return []
        return list(zip(*(torch.split(part, self._block) for part in index_U.sort()), strict=True))

    def _levels(self, index_B: Tensor) -> list[Level]:
        """Returns the level of each core. index_B: rising."""
        levels: list[Level] = []
        prefix_F = index_B
        for p in reversed(self._shape.p[1:]):
            above_G, parent_F, lengths_G = torch.unique_consecutive(
                prefix_F // p, return_inverse=True, return_counts=True
            )
            levels.insert(0, Level(parent_F, lengths_G, prefix_F % p))
            prefix_F = above_G
        return [Level(prefix_F, prefix_F, prefix_F), *levels]  # the first have no parents

    def _products(self, levels: Sequence[Level]) -> list[Tensor]:
        """Returns the products of each level, [F, Q, R]; those of the last are the rows, [B, D, 1]."""
        left_FQR = self._slices(0, levels[0])
        found = [left_FQR]
        for k, level in enumerate(levels[1:], start=1):
            product = torch.bmm(left_FQR[level.parent_F], self._slices(k, level).flatten(2))
            left_FQR = product.reshape(len(product), -1, self._shape.cores[k][3])
            found.append(left_FQR)
        return found

    def _backward(self, levels: Sequence[Level], grads_BD: Tensor) -> list[Tensor]:
        """Returns for each core the gradient of its slice in each product of the level, laid out as slices are: [F,
        slice]."""
        products = self._products(levels[:-1])
        found: list[Tensor] = []
        grads_FJ = grads_BD
        for k in range(len(levels) - 1, 0, -1):
            level = levels[k]
            left_FQR, right_FRJ = products[k - 1][level.parent_F], self._slices(k, level).flatten(2)
            grads_FQJ = grads_FJ.reshape(len(grads_FJ), left_FQR.shape[1], -1)
            found.insert(0, self._laid(k, torch.bmm(left_FQR.transpose(1, 2), grads_FQJ)))
            grads_FJ = _sums(torch.bmm(grads_FQJ, right_FRJ.transpose(1, 2)).flatten(1), level.lengths_G)
        return [grads_FJ, *found]

    def _slices(self, k: int, level: Level) -> Tensor:
        """Returns the slices of a core by product, [F, R, q, S]; of the first core, whose R is 1, [F, q, S]."""
        _, before, q, after = self._shape.cores[k]
        slices_FJ = self._tensors[k][:, : before * q * after][level.digit_F]
        if k == 0:
            return slices_FJ.reshape(-1, q, after)
        if k == len(self._tensors) - 1:
            return slices_FJ.reshape(-1, q, before).transpose(1, 2).unsqueeze(3)
        return slices_FJ.reshape(-1, before, q, after)

    def _laid(self, k: int, grads_FRJ: Tensor) -> Tensor:
        last = k == len(self._tensors) - 1
        return (grads_FRJ.transpose(1, 2) if last else grads_FRJ).flatten(1)


def _sum_by(digit_F: Tensor, grads_FJ: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (digits that occur [T], rising; the sums of their gradients [T, J])."""
    sorted_F, order_F = digit_F.sort(stable=True)
    slices_T, lengths_T = torch.unique_consecutive(sorted_F, return_counts=True)
    return slices_T, _sums(grads_FJ[order_F], lengths_T)


def _sums(grads_FJ: Tensor, lengths_T: Tensor) -> Tensor:
    """Returns sums of neighbours, [T, J]; lengths_T says how many go into each."""
    return torch.segment_reduce(grads_FJ, "sum", lengths=lengths_T, axis=0, unsafe=True)


def _update_of(optimizer: CoreOptimizer | None) -> SliceUpdate:
    """Returns an optimizer's update on tensors, which is right within float32's rounding."""
    return _refuse if optimizer is None else lambda rows_NW, grads_NJ: optimizer.on_device(rows_NW, grads_NJ, 1)


def _refuse(*_: object) -> None:
    raise AssertionError("cores without an optimizer are updated from outside")


def _apply(update: SliceUpdate, rows_CW: Tensor, slots_T: Tensor, grads_TD: Tensor) -> None:
    rows_TW = rows_CW[slots_T]
    update(rows_TW, grads_TD)
    rows_CW[slots_T] = rows_TW
