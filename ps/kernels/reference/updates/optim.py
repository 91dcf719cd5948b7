"""`ps.kernels.updates.optim`, in numpy: float32 in the order written, exact. Slots are unique."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows, Slots
from ps.kernels.updates.optim import LANES


def update_sgd(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    """w -= lr * g."""
    rows_SW[slots_N] -= lr * grads_ND
    return _broken(rows_SW[slots_N])


def update_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """h += g*g; w -= lr * g / (sqrt(h) + eps)."""
    w, h = _parts(rows_SW, slots_N, grads_ND)
    h += grads_ND * grads_ND
    value_ND = w - lr * grads_ND / (np.sqrt(h) + eps)
    rows_SW[slots_N] = np.hstack([value_ND, h])
    return _broken(value_ND + h)


def update_rowwise_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """h += mean(g*g); w -= (lr / (sqrt(h) + eps)) * g."""
    w, h = _parts(rows_SW, slots_N, grads_ND)
    h += _mean_square(grads_ND)[:, None]
    rows_SW[slots_N] = np.hstack([w - lr / (np.sqrt(h) + eps) * grads_ND, h])
    return _broken(rows_SW[slots_N])


def _mean_square(grads_ND: Rows) -> Rows:
    """Squares are added up in LANES lanes, element j in lane j % LANES; then the lanes pairwise; then what is left."""
    squares_ND = grads_ND * grads_ND
    dim = squares_ND.shape[1]
    full = dim // LANES * LANES
    s = np.zeros((len(squares_ND), LANES), np.float32)
    for j in range(0, full, LANES):
        s += squares_ND[:, j : j + LANES]
    total_N = ((s[:, 0] + s[:, 4]) + (s[:, 2] + s[:, 6])) + ((s[:, 1] + s[:, 5]) + (s[:, 3] + s[:, 7]))
    for j in range(full, dim):
        total_N += squares_ND[:, j]
    total_N /= np.float32(dim)
    return total_N


def update_adam(
    rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> int:
    """m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps)."""
    w, m, v = _parts(rows_SW, slots_N, grads_ND)
    size = np.float32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    m = np.float32(beta1) * m + np.float32(1.0 - beta1) * grads_ND
    v = np.float32(beta2) * v + np.float32(1.0 - beta2) * (grads_ND * grads_ND)
    value_ND = w - size * m / (np.sqrt(v) + np.float32(eps))
    rows_SW[slots_N] = np.hstack([value_ND, m, v])
    return _broken(value_ND + m + v)


def update_ftrl(
    rows_SW: Rows,
    slots_N: Slots,
    grads_ND: Rows,
    alpha: np.float32,
    beta: np.float32,
    l1: np.float32,
    l2: np.float32,
) -> int:
    """sigma = (sqrt(n + g*g) - sqrt(n)) / alpha; z += g - sigma*w; n += g*g; w from z, or 0 within l1."""
    w, z, n = _parts(rows_SW, slots_N, grads_ND)
    root = np.sqrt(n + grads_ND * grads_ND)
    z += grads_ND - (root - np.sqrt(n)) / alpha * w
    shrunk = np.where(z > 0, z - l1, z + l1)
    solved = np.where(np.abs(z) <= l1, np.float32(0), -shrunk / ((beta + root) / alpha + l2))
    n += grads_ND * grads_ND
    rows_SW[slots_N] = np.hstack([solved, z, n])
    return _broken(solved + z + n)


def _broken(numbers_NX: npt.NDArray[np.floating[Any]]) -> int:
    """Rows with infinity or NaN."""
    return int((~np.isfinite(numbers_NX)).any(axis=1).sum())


def _parts(rows_SW: Rows, slots_N: Slots, grads_ND: Rows) -> list[Rows]:
    """The rows of the slots, cut into pieces of D floats: the value, then the state."""
    dim = grads_ND.shape[1]
    rows_NW = rows_SW[slots_N]
    return [rows_NW[:, start : start + dim] for start in range(0, rows_NW.shape[1], dim)]
