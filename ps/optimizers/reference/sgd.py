"""SGD, in numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    """Computes w -= lr * g."""
    rows_SW[slots_N] -= lr * grads_ND
    return broken(rows_SW[slots_N])
