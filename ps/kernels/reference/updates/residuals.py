"""The specification of `ps.kernels.updates.residuals`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows, Slots

LANES = 8
TINY = np.finfo(np.float32).tiny


def accumulate(
    residuals_SD: Rows,
    norms_S: Rows,
    slots_U: Slots,
    grads_UD: Rows,
    threshold: np.float32,
    waits_U: npt.NDArray[np.bool_],
    picked_U: npt.NDArray[np.int32],
    norms_U: Rows,
) -> None:
    """Holds the totals of rows that have a slot: residuals[slots[i]] += grads[i]. Others are only looked at.

    picked[i] = how many elements of total i are sent, none where waits[i]; norms[i], and norms_S of its slot, = the
    squared norm of what stays of it: 0 only where all of that is 0, else TINY at least.
    """
    here_U = slots_U >= 0
    residuals_SD[slots_U[here_U]] += grads_UD[here_U]
    total_UD = _totals(residuals_SD, slots_U, grads_UD)
    sent_UD = (np.abs(total_UD) >= threshold) & ~waits_U[:, None]
    picked_U[:] = sent_UD.sum(axis=1)
    left_UD = np.where(sent_UD, np.float32(0), total_UD)
    norms_U[:] = np.where(left_UD.any(axis=1), np.maximum(_sum_squares(left_UD), TINY), np.float32(0))
    norms_S[slots_U[here_U]] = norms_U[here_U]


def send(
    residuals_SD: Rows,
    slots_R: Slots,
    grads_UD: Rows,
    rows_R: Slots,
    whole_R: npt.NDArray[np.bool_],
    threshold: np.float32,
    out_RD: Rows,
) -> None:
    """out[k] = what is sent of row rows[k]: its total, which is residuals[slots[k]], or grads[rows[k]] where it has no
    slot; all of it where whole[k], else the elements that are sent, and 0 between. The slot keeps the rest."""
    total_RD, here_R = _totals(residuals_SD, slots_R, grads_UD[rows_R]), slots_R >= 0
    sent_RD = whole_R[:, None] | (np.abs(total_RD) >= threshold)
    out_RD[:] = np.where(sent_RD, total_RD, np.float32(0))
    residuals_SD[slots_R[here_R]] = np.where(sent_RD, np.float32(0), total_RD)[here_R]


def hold(
    residuals_SD: Rows,
    slots_H: Slots,
    grads_UD: Rows,
    rows_H: Slots,
    threshold: np.float32,
    waits_H: npt.NDArray[np.bool_],
) -> None:
    """residuals[slots[k]] = what stays of grads[rows[k]], whatever was there: all of it where waits[k]."""
    grads_HD = grads_UD[rows_H]
    sent_HD = (np.abs(grads_HD) >= threshold) & ~waits_H[:, None]
    residuals_SD[slots_H] = np.where(sent_HD, np.float32(0), grads_HD)


def _totals(residuals_SD: Rows, slots_N: Slots, grads_ND: Rows) -> Rows:
    """What is held of each row, or its gradient where it has no slot."""
    total_ND: Rows = np.where(slots_N[:, None] >= 0, residuals_SD[slots_N], grads_ND)
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
