"""Adagrad (Duchi et al. 2011), as torch.optim.Adagrad."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.optimizers.rowwise_adagrad import RowwiseAdagrad
from ps.values.frozen import NonNegative, Positive, Rate

if TYPE_CHECKING:
    from torch import Tensor


class Adagrad(Optimizer):
    """h += g*g; w -= lr * g / (sqrt(h) + eps), as torch.optim.Adagrad. State: dim floats a row."""

    kind: Literal["adagrad"] = "adagrad"
    lr: Rate = 0.01
    eps: Positive = 1e-10
    initial_accumulator: NonNegative = 0.0
    """The initial value of h in a new row."""

    core_alignment: ClassVar[float | None] = 2 / math.pi
    changeable: ClassVar[tuple[str, ...]] = ("lr", "eps")

    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside its value, as `Optimizer` says."""
        return dim

    @property
    def initial_state(self) -> float:
        """Returns the initial value of each float of state, as `Optimizer` says."""
        return self.initial_accumulator

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients, as `Optimizer` says."""
        return np.float32(self.lr), np.float32(self.eps)

    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element, as `Optimizer` says."""
        return Half(dim, brain=dim)

    def rowwise(self) -> RowwiseAdagrad:
        """Returns row-wise Adagrad, as `Optimizer` says: its one number is the mean of h over the row."""
        return RowwiseAdagrad(**self.model_dump(exclude={"kind"}))

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `Optimizer` says."""
        dim = grads_ND.shape[1]
        w, h = rows_NW[:, :dim], rows_NW[:, dim : 2 * dim]
        h += grads_ND * grads_ND
        w -= f32(self.lr) * grads_ND / (h.sqrt() + f32(self.eps))


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """Computes h += g*g; w -= lr * g / (sqrt(h) + eps). State h [D]."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, h_D = row_W[:dim], row_W[dim : 2 * dim]
        largest = ZERO
        for j in range(dim):
            h = h_D[j] + grad_D[j] * grad_D[j]
            h_D[j] = h
            value = value_D[j] - lr * grad_D[j] / (np.float32(math.sqrt(h)) + eps)
            value_D[j] = value
            largest = larger(largest, value + h)
        broken += int(largest >= INFINITY)
    return broken
