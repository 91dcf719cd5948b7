"""Adagrad, in numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken, parts


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """Computes h += g*g; w -= lr * g / (sqrt(h) + eps)."""
    w, h = parts(rows_SW, slots_N, grads_ND)
    h += grads_ND * grads_ND
    value_ND = w - lr * grads_ND / (np.sqrt(h) + eps)
    rows_SW[slots_N] = np.hstack([value_ND, h])
    return broken(value_ND + h)
