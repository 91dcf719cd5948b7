"""How much a loss leans on a row: |gradient x value|, the first-order Taylor estimate of what the loss would change by
if the row were not there (Molchanov et al. 2017).

rows_SW float32 [S, W], the value in the first D floats; slots_N int64 [N], all in [0, S); grads_ND float32 [N, D].
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Rows, Slots
from ps.kernels.kernel import kernel
from ps.kernels.prefetch import prefetch_row


@kernel(either="grads_ND")
def attribute(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, out_N: Rows) -> None:
    """out[i] = |sum over j of grads[i, j] * rows[slots[i], j]|, added up in the order of j in float32."""
    dim = grads_ND.shape[1]
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, dim)
        total = np.float32(0.0)
        for j in range(dim):
            total += grads_ND[i, j] * rows_SW[slots_N[i], j]
        out_N[i] = abs(total)
