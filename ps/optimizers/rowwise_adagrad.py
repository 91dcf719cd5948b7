"""Row-wise Adagrad: Adagrad with one accumulator for each row (FBGEMM's exact row-wise Adagrad)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, inlined, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.values.frozen import NonNegative, Positive, Rate

if TYPE_CHECKING:
    from torch import Tensor

LANES = 8
"""How many partial sums a row's mean has: element j goes to lane j % 8; the lanes are added pairwise."""


class RowwiseAdagrad(Optimizer):
    """h += mean(g*g); w -= lr * g / (sqrt(h) + eps): one float of state a row (FBGEMM's exact row-wise Adagrad)."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: Rate = 0.01
    eps: Positive = 1e-8
    initial_accumulator: NonNegative = 0.0
    """The initial value of h in a new row."""

    core_alignment: ClassVar[float | None] = 1.0
    changeable: ClassVar[tuple[str, ...]] = ("lr", "eps")

    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside its value, as `Optimizer` says."""
        return 1

    @property
    def initial_state(self) -> float:
        """Returns the initial value of each float of state, as `Optimizer` says."""
        return self.initial_accumulator

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients, as `Optimizer` says."""
        return np.float32(self.lr), np.float32(self.eps)

    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element, as `Optimizer` says."""
        return Half(dim, full=1)

    def rowwise(self) -> RowwiseAdagrad:
        """Returns this optimizer, whose state is one number already, as `Optimizer` says."""
        return self

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `Optimizer` says."""
        dim = grads_ND.shape[1]
        w, h = rows_NW[:, :dim], rows_NW[:, dim : dim + 1]
        h += (grads_ND * grads_ND).mean(dim=1, keepdim=True)
        w -= f32(self.lr) / (h.sqrt() + f32(self.eps)) * grads_ND


@inlined
def mean_square(grad_D: Rows) -> np.float32:
    """Returns the mean of the squares of a gradient's elements, added in LANES lanes."""
    dim = len(grad_D)
    full = dim // LANES * LANES
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    for j in range(0, full, LANES):
        s0 += grad_D[j] * grad_D[j]
        s1 += grad_D[j + 1] * grad_D[j + 1]
        s2 += grad_D[j + 2] * grad_D[j + 2]
        s3 += grad_D[j + 3] * grad_D[j + 3]
        s4 += grad_D[j + 4] * grad_D[j + 4]
        s5 += grad_D[j + 5] * grad_D[j + 5]
        s6 += grad_D[j + 6] * grad_D[j + 6]
        s7 += grad_D[j + 7] * grad_D[j + 7]
    total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    for j in range(full, dim):
        total += grad_D[j] * grad_D[j]
    return total / np.float32(dim)


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """Computes h += mean(g*g); w -= (lr / (sqrt(h) + eps)) * g. State h [1]."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        h = row_W[dim] + mean_square(grad_D)
        row_W[dim] = h
        scale = lr / (np.float32(math.sqrt(h)) + eps)
        largest = larger(ZERO, h)
        for j in range(dim):
            value = row_W[j] - scale * grad_D[j]
            row_W[j] = value
            largest = larger(largest, value)
        broken += int(largest >= INFINITY)
    return broken
