"""The specification of `ps.kernels.rows.attribution`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows


def attribute(rows_SW: Rows, slots_N: npt.NDArray[np.int64], grads_ND: Rows, out_N: Rows) -> None:
    """out[i] = |sum over j of grads[i, j] * rows[slots[i], j]|, added up in the order of j in float32."""
    products_ND = grads_ND * rows_SW[slots_N, : grads_ND.shape[1]]
    total_N = np.zeros(len(slots_N), np.float32)
    for j in range(grads_ND.shape[1]):
        total_N += products_ND[:, j]
    out_N[:] = np.abs(total_N)
