"""What a cold row is made of: 16 bits an element, and how a float32 row becomes one and back.

The value is binary16. How state is kept was measured: least squares with noise, 2000 pushes, gradients multiplied by a
factor that the optimizer (with eps and beta scaled down likewise) does not notice; loss as a multiple of float32's:

    gradients times             100       1    1e-2    1e-4    1e-6    1e-8
    Adam, all binary16            1       1     790     2e5     2e9     4e8
    Adam, v as its root           1       1       1       1     600     3e7
    Adam, m and v bfloat16        1       1       1       1       1       1
    Adagrad, h binary16           5       1       1       1      60      60
    Adagrad, h bfloat16           1       1       1       1       1       1
    FTRL, z and n bfloat16      1.3     1.3     1.3     1.3     1.3     1.3
    FTRL, z binary16, n bfloat16  1       1       1       1       1      16

A moment below 6e-8 is zero in binary16, and steps are divided by its root; a sum of squares passes 65504. bfloat16 has
the range of float32, and the 8 bits that it keeps suffice for what only scales a step, as they are rounded at random.
FTRL's z is no scale: the value is computed from it, so it has the value's precision, and the value's range (beta is 1
by default; the last column has it shrink with the gradients).

`rowwise` state is one number a row, kept as float32: h, the mean of Adagrad's over the row, which is then trained as
row-wise Adagrad. Promoted, every element has the row's h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Rows
from ps.config import Optimizer
from ps.kernels.rows.half import gather_half, narrow, widen

HALF_LARGEST = 65504.0
HalfState = Literal["fp16", "rowwise"]
"""How state is kept, see `ps.config.Fp16`."""


@dataclass(frozen=True)
class HalfLayout:
    """A cold row: uint16 [items], as `ps.kernels.rows.half` has it."""

    dim: int
    half: int
    """Elements in binary16: the value, and what needs its precision."""
    brain: int
    """Elements in bfloat16."""
    full: int
    """Numbers in float32."""
    spread: int = 1
    """Elements of a hot row for which each of those numbers stands."""

    @property
    def width(self) -> int:
        """Floats of the row while it is trained."""
        return self.half + self.brain + self.full

    @property
    def items(self) -> int:
        """How many items of 16 bits a row has."""
        return self.half + self.brain + 2 * self.full

    @property
    def row_bytes(self) -> int:
        """Bytes of a cold row."""
        return 2 * self.items

    def to_half(self, rows_NB: Bytes) -> Bytes:
        """Returns hot rows as cold ones, rounded to nearest: it belongs to no push, which could decide how to round."""
        row_NW = self._reduced(_items(rows_NB, np.float32))
        item_NI = np.empty((len(row_NW), self.items), np.uint16)
        narrow(row_NW, np.arange(len(row_NW)), item_NI, self.half, self.brain)
        return item_NI.view(np.uint8)

    def round(self, out_ND: Rows) -> None:
        """Makes values of hot rows what they are once those are cold rows."""
        item_ND, order_N = np.empty(out_ND.shape, np.uint16), np.arange(len(out_ND))
        narrow(out_ND, order_N, item_ND, self.dim, 0)
        gather_half(item_ND, order_N, out_ND)

    def beyond_half(self, rows_NB: Bytes) -> int:
        """Returns how many of the hot rows have a finite number beyond 65504 in a place of binary16: `to_half` clamps
        it."""
        largest_N = np.abs(_items(rows_NB, np.float32)[:, : self.half]).max(axis=1, initial=0)
        return int(((largest_N > HALF_LARGEST) & (largest_N < np.inf)).sum())

    def to_full(self, rows_NB: Bytes) -> Bytes:
        """Returns cold rows as hot ones. Nothing is rounded."""
        row_NW = np.empty((len(rows_NB), self.width), np.float32)
        widen(_items(rows_NB, np.uint16), np.arange(len(rows_NB)), row_NW, self.half, self.brain)
        kept = self.half + self.brain
        spread_NS = np.repeat(row_NW[:, kept:], self.spread, axis=1)
        full_NW = np.ascontiguousarray(np.hstack([row_NW[:, :kept], spread_NS]))
        return full_NW.view(np.uint8)

    def _reduced(self, hot_NW: Rows) -> Rows:
        """Returns one number in place of `spread`: the mean, summed in order in float64, so that every machine
        agrees."""
        if self.spread == 1:
            return hot_NW
        kept = self.half + self.brain
        sum_N = np.zeros(len(hot_NW))
        for j in range(kept, kept + self.spread):
            sum_N += hot_NW[:, j]
        mean_N1 = (sum_N / self.spread).astype(np.float32)[:, None]
        return np.hstack([hot_NW[:, :kept], mean_N1])


def half_layout(dim: int, optimizer: Optimizer, state: HalfState) -> HalfLayout:
    """Returns the layout of cold rows with values of `dim` elements."""
    half, brain, full = cold_optimizer(optimizer, state).half(dim)
    numbers = dim + optimizer.state_width(dim) - half - brain
    return HalfLayout(dim, half, brain, full, spread=numbers // full if full else 1)


def cold_optimizer(optimizer: Optimizer, state: HalfState) -> Optimizer:
    """Returns the optimizer that trains the cold rows of a table with this optimizer."""
    trains = optimizer.rowwise() if state == "rowwise" else optimizer
    assert trains is not None, "refused by TableConfig"
    return trains


def _items(rows_NB: Bytes, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Returns bytes as numbers: a copy only if they do not lie side by side, or not at an even address."""
    items = np.ascontiguousarray(rows_NB).view(dtype)
    return np.require(items, requirements=["A"])
