"""Fused optimizer steps, in place in the arena: each row is read and written once. The arithmetic of each optimizer
stands in its file (`ps.optimizers`); here it is compiled.

Duplicates inside one push are summed before they come here; two pushes of one id are two updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.extending import overload, register_jitable

from ps.arrays import Rows, Slots
from ps.kernels.bits import float_bits
from ps.kernels.kernel import kernel
from ps.kernels.prefetch import prefetch_row
from ps.optimizers import arithmetic
from ps.optimizers.arithmetic import MAGNITUDE
from ps.optimizers.base import Optimizer
from ps.optimizers.registry import OPTIMIZERS

Update = Callable[[Rows, Slots, Rows, int], int]

for _function in arithmetic.INLINED:
    register_jitable(inline="always")(_function)


@overload(arithmetic.prefetch_row, inline="always")
def _prefetch_row(rows_SW: Rows, slots_N: Slots, i: int, width: int) -> Any:
    def compiled(rows_SW: Rows, slots_N: Slots, i: int, width: int) -> None:
        prefetch_row(rows_SW, slots_N, i, width)

    return compiled


@overload(arithmetic.larger, inline="always")
def _larger(largest: np.int32, value: np.float32) -> Any:
    def compiled(largest: np.int32, value: np.float32) -> np.int32:
        return max(largest, np.int32(float_bits(value) & MAGNITUDE))

    return compiled


KERNELS = {
    kind: kernel(either="grads_ND", error_model="numpy")(optimizer.update) for kind, optimizer in OPTIMIZERS.items()
}
"""The compiled updates, by the kind of the optimizer."""


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer for rows of one width."""

    state_width: int
    """float32 of state beside each row's value."""
    initial_state: float
    """What each of them starts at."""
    update: Update
    """update(rows_SW, slots_N, grads_ND, step): in place; slots are unique; `step` is the table's, from 1. Returns how
    many rows may not be finite afterwards."""


def update_rule(optimizer: Optimizer, dim: int) -> UpdateRule:
    """The rule for rows with values of `dim` floats."""
    update = KERNELS[optimizer.kind]

    def applied(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, step: int) -> int:
        return int(update(rows_SW, slots_N, grads_ND, *optimizer.arguments(step)))

    return UpdateRule(optimizer.state_width(dim), optimizer.initial_state, applied)
