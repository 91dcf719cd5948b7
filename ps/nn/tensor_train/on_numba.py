"""Tensor-train rows on the CPU: the kernels that the service's tensor-train tier runs, on memory that torch holds.

Nothing is copied between the two: cores and cached rows are the module's tensors, seen as arrays. The results do not
depend on how many threads torch has: the work is always divided at the same places.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ps.config import CoreOptimizer
from ps.kernels.index.unique import unique
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.tensor_train import rates
from ps.tensor_train.contract import one_by_one
from ps.tensor_train.cores import Cores
from ps.tensor_train.fold import fold
from ps.tensor_train.shape import TTShape


class NumbaCores:
    """The arithmetic of one table on the CPU; `ps.nn.tensor_train.rows.Arithmetic` says what each method does."""

    def __init__(self, shape: TTShape, tensors: Sequence[Tensor], optimizer: CoreOptimizer | None) -> None:
        """tensors: float32 [p, slice + state] each, contiguous, on the CPU; read and written in place. Without an
        optimizer they have no state, and `apply` must not be called."""
        arrays = [tensor.detach().numpy() for tensor in tensors]
        self._cores = Cores.over(shape, arrays, core_rules(shape, optimizer))
        self._row_rule = rule(optimizer, shape.dim)

    def unique(self, index_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (unique [u] in the order of occurrence, the position of each index among them [n], how often each
        occurs [u]); int64."""
        unique_U, inverse_N, counts_U = unique(index_N.contiguous().numpy())
        return torch.from_numpy(unique_U), torch.from_numpy(inverse_N), torch.from_numpy(counts_U.astype(np.int64))

    def lookup(self, index_U: Tensor) -> Tensor:
        """Returns rows [u, D]."""
        rows_UD = torch.empty((len(index_U), self._cores.shape.dim))
        self._cores.lookup(index_U.numpy(), rows_UD.numpy(), share)
        return rows_UD

    def gradients(self, index_U: Tensor, grads_UD: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Returns for each core the slices that these rows have [t] and the gradients of those slices [t, slice]."""
        found = self._cores.gradients(index_U.numpy(), grads_UD.contiguous().numpy(), share)
        return [(torch.from_numpy(part.slices_T), torch.from_numpy(part.grads_TJ)) for part in found]

    def apply(self, index_U: Tensor, grads_UD: Tensor) -> None:
        """Makes a step of the optimizer by the gradients of rows."""
        self._cores.apply(index_U.numpy(), grads_UD.contiguous().numpy(), share)

    def apply_dense(self, rows_CW: Tensor, slots_T: Tensor, grads_TD: Tensor) -> None:
        """Makes a step of the optimizer for rows that are not in the cores: [c, D + state], slots unique."""
        self._row_rule.update(rows_CW.numpy(), slots_T.numpy(), grads_TD.contiguous().numpy(), 1)

    def fold(self, index_U: Tensor, rows_UD: Tensor, tolerance: float) -> Tensor:
        """Moves the cores towards these rows; returns the relative error of each row after that, [u]."""
        return torch.from_numpy(fold(self._cores, index_U.numpy(), rows_UD.contiguous().numpy(), tolerance))


def rule(optimizer: CoreOptimizer | None, width: int) -> UpdateRule:
    """Returns the update rule for rows of `width` floats. Without an optimizer: one without state that refuses to
    run."""
    return UpdateRule(0, 0.0, _refuse) if optimizer is None else update_rule(optimizer, width)


def core_rules(shape: TTShape, optimizer: CoreOptimizer | None) -> list[UpdateRule]:
    """Returns the update rule for the slices of each core, at the rate that moves rows as `optimizer` moves rows of
    their own."""
    if optimizer is None:
        return [rule(None, size) for size in shape.slice_sizes]
    return rates.core_rules(optimizer, shape)


def _refuse(*_: object) -> int:
    raise AssertionError("cores without an optimizer are updated from outside")


def share(tasks: Sequence[Callable[[], None]]) -> None:
    """Runs tasks that touch disjoint memory, every second one on another thread if torch may use two."""
    if len(tasks) < 2 or torch.get_num_threads() < 2:
        one_by_one(tasks)
        return
    future = _second_thread(os.getpid()).submit(one_by_one, tasks[1::2])
    try:
        one_by_one(tasks[0::2])
    finally:
        error = future.exception()  # waits, also when this half has failed: nobody may write on after the return
    if error is not None:
        raise error


@functools.cache
def _second_thread(pid: int) -> ThreadPoolExecutor:
    """Returns the process's second thread. It is looked up by process id because threads do not survive a fork."""
    return ThreadPoolExecutor(1, thread_name_prefix=f"tensor-train-{pid}")
