"""Folds rows back: moves the cores a little, so that some of their rows become given ones.

With all other cores as they are, rows are linear in the middle core (the last but one), and rows of different middle
slices have nothing to do with each other. So this is a small linear least-squares problem a slice. CGLS (Hestenes and
Stiefel 1952; Bjorck, "Numerical Methods for Least Squares Problems", 7.4) solves all of them side by side, from the
cores as they are: each of its iterates is the smallest change among those that it could reach. Few steps, because what
a slice changes for one row, it changes for all rows that share it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ps.arrays import Floats, Ints
from ps.tensor_train.contract import Buffers, Factors, Touched, one_by_one
from ps.tensor_train.cores import Cores

STEPS = 3
"""The number of CGLS steps; more rows in a slice need more."""
MOST_CHANGE = 0.1
"""The most that one fold changes a slice, as a share of its norm. The rows of the table that share the slice move by
about as much."""


@np.errstate(over="ignore", invalid="ignore")
def fold(cores: Cores, index_N: Ints, rows_ND: Floats, tolerance: float, steps: int = STEPS) -> Floats:
    """Moves the cores towards rows_ND [n, D] and returns |core value - row| / |row| of each as it is afterwards, [n].

    A slice changes by MOST_CHANGE at most, and not at all if that brings none of its rows within the tolerance: it
    would be worse for all others and better for none. The optimizer's state stays. Where cores have diverged so far
    that floats do not hold it, they stay as they are and the error is NaN or infinite.
    """
    if not len(index_N):
        return np.empty(0, np.float64)
    factors = cores.factors(index_N)
    middle = Touched.of(factors.middle_N, len(factors.middle_MW))
    slice_N = middle.at_P[factors.middle_N]
    size = factors.dims[1] * factors.dims[2] * factors.dims[3]
    before_ND = np.empty(rows_ND.shape, factors.middle_MW.dtype)
    factors.rows(before_ND, one_by_one)
    was_TJ = factors.middle_MW[middle.slices_T, :size]
    change_TJ = _solve(factors, middle, slice_N, rows_ND - before_ND, size, steps)
    shares_T = _quotient(MOST_CHANGE * np.sqrt(_squares(was_TJ)), np.sqrt(_squares(change_TJ)))
    factors.middle_MW[middle.slices_T, :size] += np.minimum(shares_T, 1)[:, None] * change_TJ
    errors_N = _errors(factors, rows_ND)
    useless_T = np.ones(len(middle.slices_T), np.bool_)
    useless_T[slice_N[errors_N <= tolerance]] = False
    factors.middle_MW[middle.slices_T[useless_T], :size] = was_TJ[useless_T]
    return _errors(factors, rows_ND) if useless_T.any() else errors_N


def _solve(factors: Factors, middle: Touched, slice_N: Ints, rest_ND: Floats, size: int, steps: int) -> Floats:
    """Returns the change of each slice that leaves little of `rest_ND`."""
    buffers = Buffers(rest_ND.dtype)
    touched = (
        Touched.of(factors.left_N, len(factors.left_LKR)),
        middle,
        Touched.of(factors.right_N, len(factors.right_TKS)),
    )

    def downhill() -> Floats:
        return factors.gradients(rest_ND, touched, buffers, one_by_one)[1]

    slices = len(middle.slices_T)
    change_TJ, step_ND = np.zeros((slices, size), rest_ND.dtype), np.empty(rest_ND.shape, rest_ND.dtype)
    way_TJ = downhill().copy()
    squares_T = _squares(way_TJ)
    for _ in range(steps):
        replace(factors, middle_MW=way_TJ, middle_N=slice_N).rows(step_ND, one_by_one)
        curvature_T = np.bincount(slice_N, _squares(step_ND), slices).astype(np.float64)
        length_T = _quotient(squares_T, curvature_T).astype(rest_ND.dtype)
        change_TJ += length_T[:, None] * way_TJ
        rest_ND = rest_ND - length_T[slice_N][:, None] * step_ND
        down_TJ = downhill()
        before_T, squares_T = squares_T, _squares(down_TJ)
        way_TJ = down_TJ + _quotient(squares_T, before_T).astype(rest_ND.dtype)[:, None] * way_TJ
    return change_TJ


def _errors(factors: Factors, rows_ND: Floats) -> Floats:
    """Returns the relative error of each row; it is infinite where a row of zeros is not met."""
    value_ND = np.empty(rows_ND.shape, factors.middle_MW.dtype)
    factors.rows(value_ND, one_by_one)
    errors_N, norms_N = np.sqrt(_squares(value_ND - rows_ND)), np.sqrt(_squares(rows_ND))
    relative_N = np.divide(errors_N, norms_N, out=np.full(len(errors_N), np.inf), where=norms_N > 0)
    return np.where(errors_N == 0, 0, relative_N)  # NaN stays NaN


def _squares(x_NJ: Floats) -> npt.NDArray[np.float64]:
    squares_N: npt.NDArray[np.float64] = np.einsum("nj,nj->n", x_NJ, x_NJ, dtype=np.float64)
    return squares_N


def _quotient(x_T: npt.NDArray[np.float64], y_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divides; the quotient is 0 where there is nothing left to divide."""
    return np.divide(x_T, y_T, out=np.zeros(len(x_T)), where=y_T > 0)
