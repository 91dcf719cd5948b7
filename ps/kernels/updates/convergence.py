"""How small a row's gradients are against its value, as a running mean of the steps that have the row.

statistics_S: records of dtype STATISTIC, by slot. slots_N int64 [N], unique, in [0, S). rows_N int64 [N]: where in the
step the rows are. grads_UD, values_UD float32 [U, D]. Nothing of this is checked here. Arithmetic is float32 in the
order written, so every machine finds the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Positions, Rows
from ps.kernels.kernel import kernel
from ps.kernels.updates.residuals import _sum_squares

STATISTIC = np.dtype(
    [("id", np.int64), ("mean", np.float32), ("seen", np.int32), ("seen_at", np.int32), ("sent_at", np.int32)]
)
"""mean: of min(1, |gradient| / |value|). seen: steps that had the row, counted up to the window. seen_at, sent_at: the
last step that had the row, and the last in which its gradient was sent."""


@kernel(warm=False)
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
    for k in range(len(slots_N)):
        grad, value = _sum_squares(grads_UD[rows_N[k]]), _sum_squares(values_UD[rows_N[k]])
        x = np.sqrt(grad / value) if grad < value else np.float32(1.0)
        one = statistics_S[slots_N[k]]
        n = min(one.seen + 1, window)
        one.mean += (x - one.mean) / np.float32(n)
        one.seen = n
        one.seen_at = step
