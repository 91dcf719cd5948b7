"""FTRL-Proximal with per-coordinate rates (McMahan et al. 2013, Algorithm 1)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.values.frozen import NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor


class FTRL(Optimizer):
    """FTRL-Proximal (McMahan et al. 2013, Algorithm 1), sparse by l1. State: 2 * dim floats a row."""

    kind: Literal["ftrl"] = "ftrl"
    alpha: Positive = 0.05
    beta: Positive = 1.0
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0

    changeable: ClassVar[tuple[str, ...]] = ("l1", "l2")
    """Not alpha and beta: a row's value is computed from z, which was summed up at the rate that they make. At another
    rate its next push would scale the value, whatever the gradient."""

    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside its value, as `Optimizer` says."""
        return 2 * dim

    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients, as `Optimizer` says."""
        return np.float32(self.alpha), np.float32(self.beta), np.float32(self.l1), np.float32(self.l2)

    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element, as `Optimizer` says. z has the value's precision, because
        the value is computed from it."""
        return Half(2 * dim, brain=dim)

    def rowwise(self) -> None:
        """Returns None: z has a sign for each element. `Optimizer` says what this method is for."""
        return

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `Optimizer` says."""
        alpha, beta, l1, l2 = map(f32, (self.alpha, self.beta, self.l1, self.l2))
        w, z, n = rows_NW.chunk(3, dim=1)
        squares_ND = grads_ND * grads_ND
        root = (n + squares_ND).sqrt()
        z += grads_ND - (root - n.sqrt()) / alpha * w
        shrunk = (z - l1).where(z > 0, z + l1)
        w.copy_((-shrunk / ((beta + root) / alpha + l2)).masked_fill(z.abs() <= l1, 0.0))
        n += squares_ND


def update(
    rows_SW: Rows,
    slots_N: Slots,
    grads_ND: Rows,
    alpha: np.float32,
    beta: np.float32,
    l1: np.float32,
    l2: np.float32,
) -> int:
    """Computes sigma = (sqrt(n + g*g) - sqrt(n)) / alpha; z += g - sigma*w; n += g*g;
    w = 0 if |z| <= l1, else -(z - sign(z)*l1) / ((beta + sqrt(n)) / alpha + l2). State z [D], n [D]."""
    dim = grads_ND.shape[1]
    zero = np.float32(0.0)
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, z_D, n_D = row_W[:dim], row_W[dim : 2 * dim], row_W[2 * dim : 3 * dim]
        largest = ZERO
        for j in range(dim):
            n = n_D[j] + grad_D[j] * grad_D[j]
            root = np.float32(math.sqrt(n))
            sigma = (root - np.float32(math.sqrt(n_D[j]))) / alpha
            z = z_D[j] + (grad_D[j] - sigma * value_D[j])
            z_D[j] = z
            n_D[j] = n
            shrunk = z - l1 if z > zero else z + l1
            solved = -shrunk / ((beta + root) / alpha + l2)
            value = zero if abs(z) <= l1 else solved  # chosen after both are known: a branch would not vectorise
            value_D[j] = value
            largest = larger(largest, value + z + n)
        broken += int(largest >= INFINITY)
    return broken
