"""Gradients held back: adding what is held of a row to its gradient, and parting what is sent from what stays.

residuals_SD float32 [S, D]: what is held, by slot. slots_U int64 [U], each unique or -1, where nothing is held; all in
[-1, S). grads_UD float32 [U, D]. Nothing of this is checked here. The *total* of row i is grads[i] and what is held of
it, added. Elements of a total whose absolute value is `threshold` or more are sent; with threshold infinity none is.

Arithmetic is float32 in the order written, so every machine selects the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from ps.kernels.prefetch import prefetch_row

Rows = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]

LANES = 8
"""Partial sums of squares: element j goes to lane j % 8; the lanes are added pairwise."""
TINY = np.finfo(np.float32).tiny
"""The least squared norm of a row that is not zero: the squares of its elements may all round to 0."""

_ZERO = np.float32(0.0)


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True)
def _is_zero(row_D: Rows) -> bool:
    for j in range(len(row_D)):  # noqa: SIM110  compiled
        if row_D[j] != _ZERO:
            return False
    return True


@njit(cache=True, nogil=True)
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
    dim = grads_UD.shape[1]
    left_D, by_elements = np.empty(dim, np.float32), threshold < np.inf
    for i in range(len(slots_U)):
        prefetch_row(residuals_SD, slots_U, i, dim)
        grad_D, picked = grads_UD[i], np.int32(0)
        if slots_U[i] >= 0:
            held_D = residuals_SD[slots_U[i]]
            for j in range(dim):
                left_D[j] = grad_D[j] + held_D[j]
        else:
            for j in range(dim):
                left_D[j] = grad_D[j]
        if by_elements:
            for j in range(dim):
                picked += np.int32(abs(left_D[j]) >= threshold)
            for j in range(dim):
                left_D[j] = _ZERO if abs(left_D[j]) >= threshold else left_D[j]
        norm = _sum_squares(left_D)
        if norm < TINY:
            norm = _ZERO if _is_zero(left_D) else np.float32(TINY)
        picked_U[i] = picked
        norms_U[i] = norm


@njit(cache=True, nogil=True)
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
    dim = grads_UD.shape[1]
    for k in range(len(rows_R)):
        i = rows_R[k]
        grad_D, out_D, slot = grads_UD[i], out_RD[k], slots_U[i]
        for j in range(dim):
            out_D[j] = grad_D[j]
        if slot >= 0:
            held_D = residuals_SD[slot]
            for j in range(dim):
                out_D[j] += held_D[j]
        if not whole_U[i]:
            for j in range(dim):
                out_D[j] = out_D[j] if abs(out_D[j]) >= threshold else _ZERO


@njit(cache=True, nogil=True)
def hold(residuals_SD: Rows, slots_H: Slots, grads_UD: Rows, threshold: np.float32, rows_H: Slots) -> None:
    """residuals[slots[k]] = what stays of the total of row rows[k]; the slot's content is part of the total."""
    dim = grads_UD.shape[1]
    for k in range(len(rows_H)):
        prefetch_row(residuals_SD, slots_H, k, dim)
        grad_D, held_D = grads_UD[rows_H[k]], residuals_SD[slots_H[k]]
        for j in range(dim):
            x = grad_D[j] + held_D[j]
            held_D[j] = _ZERO if abs(x) >= threshold else x
