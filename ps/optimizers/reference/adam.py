"""Lazy Adam, in numpy."""

from __future__ import annotations

import math

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken, parts


def update(
    rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> int:
    """Computes m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)."""
    w, m, v = parts(rows_SW, slots_N, grads_ND)
    size = np.float32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    m = np.float32(beta1) * m + np.float32(1.0 - beta1) * grads_ND
    v = np.float32(beta2) * v + np.float32(1.0 - beta2) * (grads_ND * grads_ND)
    value_ND = w - size * m / (np.sqrt(v) + np.float32(eps))
    rows_SW[slots_N] = np.hstack([value_ND, m, v])
    return broken(value_ND + m + v)
