"""Lazy Adam (Kingma and Ba 2015), as torch.optim.SparseAdam."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.values.frozen import Beta, Positive, Rate

if TYPE_CHECKING:
    from torch import Tensor


class Adam(Optimizer):
    """Lazy Adam, as torch.optim.SparseAdam: moments of a row move only when it is pushed; the bias correction counts
    the pushes of the whole table (docs/decisions/0017-steps-of-adam.md). State: 2 * dim floats a row."""

    kind: Literal["adam"] = "adam"
    lr: Rate = 0.001
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Positive = 1e-8

    changeable: ClassVar[tuple[str, ...]] = ("lr", "beta1", "beta2", "eps")

    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside its value, as `Optimizer` says."""
        return 2 * dim

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients, as `Optimizer` says."""
        return self.lr, self.beta1, self.beta2, self.eps, step

    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element, as `Optimizer` says."""
        return Half(dim, brain=2 * dim)

    def rowwise(self) -> None:
        """Returns None: the first moment has a sign for each element. `Optimizer` says what this method is for."""
        return

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `Optimizer` says."""
        w, m, v = rows_NW.chunk(3, dim=1)
        size = f32(self.lr * math.sqrt(1.0 - self.beta2**step) / (1.0 - self.beta1**step))
        m *= f32(self.beta1)
        m += f32(1.0 - self.beta1) * grads_ND
        v *= f32(self.beta2)
        v += f32(1.0 - self.beta2) * (grads_ND * grads_ND)
        w -= size * m / (v.sqrt() + f32(self.eps))


def update(
    rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> int:
    """Computes m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps).

    State m [D], v [D]. This is the form in the last paragraph of section 2 of the paper: eps is added before the bias
    correction; t is `step`.
    """
    dim = grads_ND.shape[1]
    size = np.float32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    keep1, keep2 = np.float32(beta1), np.float32(beta2)
    add1, add2, tiny = np.float32(1.0 - beta1), np.float32(1.0 - beta2), np.float32(eps)
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, m_D, v_D = row_W[:dim], row_W[dim : 2 * dim], row_W[2 * dim : 3 * dim]
        largest = ZERO
        for j in range(dim):
            m = keep1 * m_D[j] + add1 * grad_D[j]
            v = keep2 * v_D[j] + add2 * (grad_D[j] * grad_D[j])
            m_D[j] = m
            v_D[j] = v
            value = value_D[j] - size * m / (np.float32(math.sqrt(v)) + tiny)
            value_D[j] = value
            largest = larger(largest, value + m + v)
        broken += int(largest >= INFINITY)
    return broken
