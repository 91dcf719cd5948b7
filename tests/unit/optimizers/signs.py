"""A new optimizer, as somebody would write it: this file and its reference are all that the tests add."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.arithmetic import INFINITY, ZERO, inlined, larger, prefetch_row
from ps.optimizers.base import Half, Optimizer, f32
from ps.values.frozen import Positive

if TYPE_CHECKING:
    from torch import Tensor


class Signs(Optimizer):
    """w -= lr * sign(g), and half of that from the fifth push on. State: dim floats a row, the pushes that moved it."""

    kind: Literal["signs"] = "signs"
    lr: Positive = 0.015625

    changeable: ClassVar[tuple[str, ...]] = ("lr",)

    def state_width(self, dim: int) -> int:
        return dim

    def arguments(self, step: int) -> tuple[Any, ...]:
        return (np.float32(self.lr),)

    def half(self, dim: int) -> Half:
        return Half(dim, brain=dim)

    def rowwise(self) -> None:
        return

    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        w, n = rows_NW.chunk(2, dim=1)
        w -= f32(self.lr) * grads_ND.sign() / (1 + (n >= 4).float())
        n += grads_ND.sign().abs()


@inlined
def sign(x: np.float32) -> np.float32:
    return np.float32(1) if x > 0 else np.float32(-1) if x < 0 else np.float32(0)


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, 2 * dim)
        value_D, n_D = rows_SW[slots_N[i]][:dim], rows_SW[slots_N[i]][dim:]
        largest = ZERO
        for j in range(dim):
            way = sign(grads_ND[i, j])
            value = value_D[j] - (lr if n_D[j] < 4 else lr / 2) * way
            value_D[j] = value
            n_D[j] += abs(way)
            largest = larger(largest, np.float32(value))
        broken += int(largest >= INFINITY)
    return broken
