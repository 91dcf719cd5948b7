"""The functions that updates of optimizers use beside numpy and math.

They are plain functions. `ps.kernels.updates.optim` tells numba what they compile to: `larger` and `prefetch_row` to
instructions of the processor, those that a file declares as `inlined` to their own code, put into the update.

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
"""Magnitudes as bits: the least one, and the least one that is not finite."""
MAGNITUDE = np.int32(0x7FFFFFFF)
"""The bits of a float32 without its sign."""


def inlined(function: Function) -> Function:
    """Declares a function as one that updates call, and that is compiled into them."""
    INLINED.append(function)
    return function


def larger(largest: np.int32, value: np.float32) -> np.int32:
    """Returns the larger of two magnitudes, given as bits, which have the order of magnitudes: infinity is above all
    numbers, and NaN above infinity."""
    return max(largest, np.int32(value.view(np.int32) & MAGNITUDE))


def prefetch_row(rows_SW: Rows, slots_N: Slots, i: int, width: int) -> None:
    """Prefetches the first `width` floats of a row that is updated soon after position i; it changes no value."""
