"""Stochastic gradient descent, without momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.values.frozen import Rate

if TYPE_CHECKING:
    from torch import Tensor


class SGD(Optimizer):
    """w -= lr * g. No state."""

    kind: Literal["sgd"] = "sgd"
    lr: Rate = 0.01

    core_alignment: ClassVar[float | None] = 0.0
    changeable: ClassVar[tuple[str, ...]] = ("lr",)

    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside its value, as `Optimizer` says."""
        return 0

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients, as `Optimizer` says."""
        return (np.float32(self.lr),)

    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element, as `Optimizer` says."""
        return Half(dim)

    def rowwise(self) -> SGD:
        """Returns this optimizer, which has no state, as `Optimizer` says."""
        return self

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `Optimizer` says."""
        rows_NW -= f32(self.lr) * grads_ND


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    """Computes w -= lr * g. W = D."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        value_D, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        largest = ZERO
        for j in range(dim):
            value = value_D[j] - lr * grad_D[j]
            value_D[j] = value
            largest = larger(largest, value)
        broken += int(largest >= INFINITY)
    return broken
