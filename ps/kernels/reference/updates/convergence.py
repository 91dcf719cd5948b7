"""The specification of `ps.kernels.updates.convergence`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Positions, Rows
from ps.kernels.reference.updates.residuals import _sum_squares


def observe(
    statistics_S: npt.NDArray[np.void],
    slots_N: Positions,
    rows_N: Positions,
    grads_UD: Rows,
    values_UD: Rows,
    window: int,
    step: int,
) -> None:
    """mean += (x - mean) / n, where x = min(1, |gradient| / |value|), 1 where the value is 0, and n = the steps that
    had the row, with this one, but at most `window`: the plain mean of the first, then an exponential one."""
    grad_N, value_N = _sum_squares(grads_UD[rows_N]), _sum_squares(values_UD[rows_N])
    smaller_N = grad_N < value_N
    x_N = np.ones(len(slots_N), np.float32)
    x_N[smaller_N] = np.sqrt(grad_N[smaller_N] / value_N[smaller_N])
    seen_N = np.minimum(statistics_S["seen"][slots_N] + 1, window)
    mean_N = statistics_S["mean"][slots_N]
    statistics_S["mean"][slots_N] = mean_N + (x_N - mean_N) / seen_N.astype(np.float32)
    statistics_S["seen"][slots_N] = seen_N
    statistics_S["seen_at"][slots_N] = step
