"""What updates of optimizers are written with, beside numpy and math.

These are plain functions. `ps.kernels.updates.optim` tells numba what they compile to: `larger` and `prefetch_row` to
instructions of the processor, those that a file declares as `inlined` to what stands there.

Updates are compiled with `error_model="numpy"`: a division by zero gives infinity or NaN as IEEE 754 has it. Python's
model would raise in the middle of a push, and its test of every divisor keeps the loops from being vectorised (2 to 3
times as slow). For the same reason the parts of a row are slices: an index like `dim + j` is tested for being negative.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ps.arrays import Rows, Slots

Function = TypeVar("Function", bound=Callable[..., Any])

INLINED: list[Callable[..., Any]] = []
"""The functions that numba puts into the updates that call them."""

ZERO, INFINITY = np.int32(0), np.int32(0x7F800000)
"""Magnitudes as bits: the least, and the least that is not finite."""
MAGNITUDE = np.int32(0x7FFFFFFF)
"""The bits of a float32 but its sign."""


def inlined(function: Function) -> Function:
    """Declares a function that updates call."""
    INLINED.append(function)
    return function


def larger(largest: np.int32, value: np.float32) -> np.int32:
    """The larger magnitude, as bits, whose order is that of magnitudes: infinity is above all, and NaN above that."""
    return max(largest, np.int32(value.view(np.int32) & MAGNITUDE))


def prefetch_row(rows_SW: Rows, slots_N: Slots, i: int, width: int) -> None:
    """Asks for the first `width` floats of a row that comes soon after position i; it changes nothing."""
