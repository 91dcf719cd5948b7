"""FTRL-Proximal, in numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken, parts


def update(
    rows_SW: Rows,
    slots_N: Slots,
    grads_ND: Rows,
    alpha: np.float32,
    beta: np.float32,
    l1: np.float32,
    l2: np.float32,
) -> int:
    """Computes sigma = (sqrt(n + g*g) - sqrt(n)) / alpha; z += g - sigma*w; n += g*g; w from z, or 0 within l1."""
    w, z, n = parts(rows_SW, slots_N, grads_ND)
    root = np.sqrt(n + grads_ND * grads_ND)
    z += grads_ND - (root - np.sqrt(n)) / alpha * w
    shrunk = np.where(z > 0, z - l1, z + l1)
    solved = np.where(np.abs(z) <= l1, np.float32(0), -shrunk / ((beta + root) / alpha + l2))
    n += grads_ND * grads_ND
    rows_SW[slots_N] = np.hstack([solved, z, n])
    return broken(solved + z + n)
