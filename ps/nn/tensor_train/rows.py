"""Rows of a tensor-train table, most of them from the cores and the frequent ones from a cache, as torch differentiates
them. The device of the tensors decides which arithmetic is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ps.config import CoreOptimizer
from ps.nn.tensor_train.cache import Places
from ps.nn.tensor_train.on_numba import NumbaCores
from ps.nn.tensor_train.on_torch import TorchCores
from ps.tensor_train.shape import TTShape


class Arithmetic(Protocol):
    """The arithmetic of tensor-train rows on one kind of device: `NumbaCores` (CPU) or `TorchCores` (others). index_U:
    int64, unique, checked."""

    def unique(self, index_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (unique [u], the position of each index among them [n], how often each occurs [u]); int64."""

    def lookup(self, index_U: Tensor) -> Tensor:
        """Returns rows of the cores [u, D]."""

    def gradients(self, index_U: Tensor, grads_UD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns for each core the slices that these rows have [t] and the gradients of those slices [t, slice]. There
        must be at least one row."""

    def apply(self, index_U: Tensor, grads_UD: Tensor) -> None:
        """Makes a step of the optimizer by the gradients of rows, at least one."""

    def apply_dense(self, rows_CW: Tensor, slots_T: Tensor, grads_TD: Tensor) -> None:
        """Makes a step of the optimizer for rows that are not in the cores: [c, D + state], slots unique."""

    def fold(self, index_U: Tensor, rows_UD: Tensor, tolerance: float) -> Tensor:
        """Moves the cores towards these rows, by `ps.tensor_train.fold`; returns the relative error of each row after
        that, [u]."""


def arithmetic_of(shape: TTShape, cores: Sequence[Tensor], optimizer: CoreOptimizer | None) -> Arithmetic:
    """Returns the arithmetic for the device of the cores."""
    return (NumbaCores if cores[0].device.type == "cpu" else TorchCores)(shape, cores, optimizer)


@dataclass(frozen=True)
class Table:
    """The cores and the cache of one table, as they are now."""

    dim: int
    arithmetic: Arithmetic
    cores: Sequence[Tensor]
    """One tensor [p, slice + state] for each core."""
    cache_CW: Tensor
    """The cached rows, [c, D + state]."""
    places: Places | None
    """Finds the slots of cached rows; None: no cache."""

    def read(self, index_U: Tensor) -> Tensor:
        """Returns rows [u, D]."""
        if self.places is None:
            return self.arithmetic.lookup(index_U)
        cold, hot, slots = self._split(index_U, self.places)
        rows_UD = self.cache_CW.new_empty((len(index_U), self.dim))
        rows_UD.index_copy_(0, cold, self.arithmetic.lookup(index_U[cold]))
        return rows_UD.index_copy_(0, hot, self.cache_CW.detach()[slots, : self.dim])

    def apply(self, index_U: Tensor, grads_UD: Tensor) -> None:
        """Makes a step of the optimizer by the gradients of rows."""
        cold, cold_grads, slots, hot_grads = self._parted(index_U, grads_UD)
        if len(cold):
            self.arithmetic.apply(cold, cold_grads)
        if len(slots):
            self.arithmetic.apply_dense(self.cache_CW, slots, hot_grads)

    def gradients(self, index_U: Tensor, grads_UD: Tensor) -> list[Tensor]:
        """Returns the gradient of every core, and of the cache if there is one, each as large as the tensor itself."""
        cold, cold_grads, slots, hot_grads = self._parted(index_U, grads_UD)
        found = [torch.zeros_like(tensor) for tensor in (*self.cores, self.cache_CW)]
        if len(cold):
            for grads_PJ, (slices_T, grads_TJ) in zip(found, self.arithmetic.gradients(cold, cold_grads), strict=False):
                grads_PJ[slices_T] = grads_TJ
        if self.places is None:
            return found[:-1]
        found[-1][slots] = hot_grads
        return found

    def _parted(self, index_U: Tensor, grads_UD: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns (row numbers in the cores, their gradients, slots in the cache, their gradients)."""
        if self.places is None:
            return index_U, grads_UD, index_U[:0], grads_UD[:0]
        cold, hot, slots = self._split(index_U, self.places)
        return index_U[cold], grads_UD.index_select(0, cold), slots, grads_UD.index_select(0, hot)

    def _split(self, index_U: Tensor, places: Places) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (positions of rows in the cores, positions of rows in the cache, slots of the latter)."""
        slot_U = places.find(index_U)
        cold, hot = (slot_U < 0).nonzero().squeeze(1), (slot_U >= 0).nonzero().squeeze(1)
        return cold, hot, slot_U[hot]


class TrainedRows(torch.autograd.Function):
    """Reads rows. Its backward gives gradients to the parameters, or to the optimizer at once if there are no
    parameters.

    Both forward and backward ask for the table, because the cache may be refreshed, or the cores moved, in between.
    """

    @staticmethod
    def forward(ctx: Any, table: Callable[[], Table], index_U: Tensor, anchor: Tensor, *parameters: Tensor) -> Tensor:
        """Returns the rows [u, D]. anchor: a tensor that requires grad, so that backward is called; it gets no
        gradient."""
        ctx.table, ctx.index_U, ctx.fused = table, index_U, not parameters
        return table().read(index_U)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grads_UD: Tensor) -> Any:
        """Returns gradients for the parameters, None for all other arguments."""
        if ctx.fused:
            ctx.table().apply(ctx.index_U, grads_UD)
            return None, None, None
        return None, None, None, *ctx.table().gradients(ctx.index_U, grads_UD)
