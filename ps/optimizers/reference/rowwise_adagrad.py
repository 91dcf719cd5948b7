"""Row-wise Adagrad, in numpy."""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.optimizers.reference.parts import broken, parts
from ps.optimizers.rowwise_adagrad import LANES


def update(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """Computes h += mean(g*g); w -= (lr / (sqrt(h) + eps)) * g."""
    w, h = parts(rows_SW, slots_N, grads_ND)
    h += _mean_square(grads_ND)[:, None]
    rows_SW[slots_N] = np.hstack([w - lr / (np.sqrt(h) + eps) * grads_ND, h])
    return broken(rows_SW[slots_N])


def _mean_square(grads_ND: Rows) -> Rows:
    """Returns the mean square of each row. Squares are added in LANES lanes, element j in lane j % LANES; then the
    lanes pairwise; then the remaining elements."""
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
