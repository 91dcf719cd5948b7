"""Gradients held back: adding what is held of a row to its gradient, and parting what is sent from what stays.

residuals_SD float32 [S, D]: what is held, by slot. slots_U int64 [U], each unique or -1, where nothing is held; all in
[-1, S). grads_UD float32 [U, D]. Nothing of this is checked here. The *total* of row i is grads[i] and what is held of
it, added. Elements of a total whose absolute value is `threshold` or more are sent; with threshold infinity none is.

Arithmetic is float32 in the order written, so every machine selects the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Rows, Slots
from ps.kernels.kernel import helper, kernel
from ps.kernels.prefetch import prefetch_row

LANES = 8
"""Partial sums of squares: element j goes to lane j % 8; the lanes are added pairwise."""
TINY = np.finfo(np.float32).tiny
"""The least squared norm of a row that is not zero: the squares of its elements may all round to 0."""

_ZERO = np.float32(0.0)


@helper()
def _sum_squares(row_D: Rows) -> np.float32:
    dim = len(row_D)
    full = dim // LANES * LANES
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    for j in range(0, full, LANES):
        s0 += row_D[j] * row_D[j]
        s1 += row_D[j + 1] * row_D[j + 1]
        s2 += row_D[j + 2] * row_D[j + 2]
        s3 += row_D[j + 3] * row_D[j + 3]
        s4 += row_D[j + 4] * row_D[j + 4]
        s5 += row_D[j + 5] * row_D[j + 5]
        s6 += row_D[j + 6] * row_D[j + 6]
        s7 += row_D[j + 7] * row_D[j + 7]
    total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    for j in range(full, dim):
        total += row_D[j] * row_D[j]
    return total


@helper(inline=False)
def _is_zero(row_D: Rows) -> bool:
    for j in range(len(row_D)):  # noqa: SIM110  compiled
        if row_D[j] != _ZERO:
            return False
    return True


@kernel(warm=False)
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
    dim = grads_UD.shape[1]
    left_D, by_elements = np.empty(dim, np.float32), threshold < np.inf
    for i in range(len(slots_U)):
        prefetch_row(residuals_SD, slots_U, i, dim)
        grad_D, slot, picked = grads_UD[i], slots_U[i], np.int32(0)
        if slot >= 0:
            held_D = residuals_SD[slot]
            for j in range(dim):
                left_D[j] = grad_D[j] + held_D[j]
            for j in range(dim):
                held_D[j] = left_D[j]
        else:
            for j in range(dim):
                left_D[j] = grad_D[j]
        if by_elements and not waits_U[i]:
            for j in range(dim):
                picked += np.int32(abs(left_D[j]) >= threshold)
            for j in range(dim):
                left_D[j] = _ZERO if abs(left_D[j]) >= threshold else left_D[j]
        norm = _sum_squares(left_D)
        if norm < TINY:
            norm = _ZERO if _is_zero(left_D) else np.float32(TINY)
        picked_U[i] = picked
        norms_U[i] = norm
        if slot >= 0:
            norms_S[slot] = norm


@kernel(warm=False)
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
    dim = grads_UD.shape[1]
    for k in range(len(rows_R)):
        prefetch_row(residuals_SD, slots_R, k, dim)
        out_D, slot = out_RD[k], slots_R[k]
        total_D = residuals_SD[slot] if slot >= 0 else grads_UD[rows_R[k]]
        if whole_R[k]:
            for j in range(dim):
                out_D[j] = total_D[j]
        else:
            for j in range(dim):
                out_D[j] = total_D[j] if abs(total_D[j]) >= threshold else _ZERO
        if slot >= 0:
            held_D = residuals_SD[slot]
            if whole_R[k]:
                for j in range(dim):
                    held_D[j] = _ZERO
            else:
                for j in range(dim):
                    held_D[j] = _ZERO if abs(held_D[j]) >= threshold else held_D[j]


@kernel(warm=False)
def hold(
    residuals_SD: Rows,
    slots_H: Slots,
    grads_UD: Rows,
    rows_H: Slots,
    threshold: np.float32,
    waits_H: npt.NDArray[np.bool_],
) -> None:
    """residuals[slots[k]] = what stays of grads[rows[k]], whatever was there: all of it where waits[k]."""
    for k in range(len(rows_H)):
        grad_D, held_D = grads_UD[rows_H[k]], residuals_SD[slots_H[k]]
        limit = np.float32(np.inf) if waits_H[k] else threshold
        for j in range(grads_UD.shape[1]):
            held_D[j] = _ZERO if abs(grad_D[j]) >= limit else grad_D[j]
