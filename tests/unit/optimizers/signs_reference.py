"""`signs`, in numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken, parts


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    w, n = parts(rows_SW, slots_N, grads_ND)
    ways_ND = np.sign(grads_ND)
    value_ND = w - np.where(n < 4, lr, lr / 2) * ways_ND
    rows_SW[slots_N] = np.hstack([value_ND, n + np.abs(ways_ND)])
    return broken(value_ND)
