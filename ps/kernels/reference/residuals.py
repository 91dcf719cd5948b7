"""The specification of `ps.kernels.residuals`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]

LANES = 8
TINY = np.finfo(np.float32).tiny


def survey(
    residuals_SD: Rows,
    slots_U: Slots,
    grads_UD: Rows,
    threshold: np.float32,
    picked_U: npt.NDArray[np.int32],
    norms_U: Rows,
) -> None:
    """picked[i] = how many elements of total i are sent; norms[i] = the squared norm of what stays of it: 0 only where
    all of it is 0, else TINY at least. Changes nothing else."""
    total_UD = _totals(residuals_SD, slots_U, grads_UD)
    sent_UD = np.abs(total_UD) >= threshold
    picked_U[:] = sent_UD.sum(axis=1)
    left_UD = np.where(sent_UD, np.float32(0), total_UD)
    norms_U[:] = np.where(left_UD.any(axis=1), np.maximum(_sum_squares(left_UD), TINY), np.float32(0))


def take_sent(
    residuals_SD: Rows,
    slots_U: Slots,
    grads_UD: Rows,
    threshold: np.float32,
    whole_U: npt.NDArray[np.bool_],
    rows_R: Slots,
    out_RD: Rows,
) -> None:
    """out[k] = total of row rows[k]: all of it where whole[rows[k]], else the elements that are sent and 0 between."""
    total_RD = _totals(residuals_SD, slots_U[rows_R], grads_UD[rows_R])
    out_RD[:] = np.where(whole_U[rows_R, None] | (np.abs(total_RD) >= threshold), total_RD, np.float32(0))


def hold(residuals_SD: Rows, slots_H: Slots, grads_UD: Rows, threshold: np.float32, rows_H: Slots) -> None:
    """residuals[slots[k]] = what stays of the total of row rows[k]; the slot's content is part of the total."""
    total_HD = _totals(residuals_SD, slots_H, grads_UD[rows_H])
    residuals_SD[slots_H] = np.where(np.abs(total_HD) >= threshold, np.float32(0), total_HD)


def _totals(residuals_SD: Rows, slots_N: Slots, grads_ND: Rows) -> Rows:
    total_ND = grads_ND.copy()
    total_ND[slots_N >= 0] += residuals_SD[slots_N[slots_N >= 0]]
    return total_ND


def _sum_squares(rows_ND: Rows) -> Rows:
    """Element j goes to lane j % 8; the lanes are added pairwise, what is left of the row behind them."""
    squares_ND = rows_ND * rows_ND
    full = squares_ND.shape[1] // LANES * LANES
    lanes_NL = np.zeros((len(rows_ND), LANES), np.float32)
    for start in range(0, full, LANES):
        lanes_NL += squares_ND[:, start : start + LANES]
    s0, s1, s2, s3, s4, s5, s6, s7 = lanes_NL.T
    total_N: Rows = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    for j in range(full, squares_ND.shape[1]):
        total_N = total_N + squares_ND[:, j]
    return total_N
