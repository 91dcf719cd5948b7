"""Tensor-train rows: products of three cores, forward and backward, and the order that shares their leading part.

Three cores stand for a table of rows of D = a * b * c floats. For a row whose digits are (l, m, t), in paper notation
with ranks R and S (Yin et al., "TT-Rec", MLSys 2021, section 3):

    row[x, y, z] = sum over r, s of left[l, x, r] * middle[m, r, y, s] * right[t, s, z]

What the arrays here have, one slice of a core a row; what follows the slice in it (an optimizer's state) is left alone:

    left_LW     [l, >= a * R]
    middle_MW   [m, >= R * b * S]
    right_TW    [t, >= c * S], as [c, S]: the last core lies transposed, so that inner loops run along S

Rows of a batch come in the order of (m, l), so that the product of left and middle is computed once for all rows that
share it, stays in the first cache while they do, and the middle slice, the large one, while its rows last. A *pair* is
a (l, m) that occurs. So a row costs, in multiplications, a * b * c * S and its share of a * R * b * S.

Arithmetic is in the type of the arrays and in the order written: every machine computes the same bytes. Nothing is
checked here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Dims = tuple[int, int, int, int, int]
"""(a, R, b, S, c)"""


@njit(cache=True, nogil=True, error_model="numpy")
def order_pairs(
    left_N: Ints, lefts: int, middle_N: Ints, middles: int, places_N: Ints, left_P: Ints, middle_P: Ints, starts_P: Ints
) -> int:
    """The order of (middle, left): places_N gets positions in the batch, left_P and middle_P the digits of each pair,
    starts_P where its rows begin, and one more, N. Returns how many pairs there are; outputs have room for N + 1.

    Two counting sorts: linear, and rows of one pair stay in the order of the batch.
    """
    n = len(left_N)
    by_left_N = np.empty(n, np.int64)
    _sort(left_N, lefts, np.arange(n), by_left_N)
    _sort(middle_N, middles, by_left_N, places_N)
    pairs = 0
    for i in range(n):
        left, middle = left_N[places_N[i]], middle_N[places_N[i]]
        if not pairs or left != left_P[pairs - 1] or middle != middle_P[pairs - 1]:
            left_P[pairs], middle_P[pairs], starts_P[pairs] = left, middle, i
            pairs += 1
    starts_P[pairs] = n
    return pairs


@njit(cache=True, nogil=True, error_model="numpy")
def _sort(keys_N: Ints, keys: int, from_N: Ints, to_N: Ints) -> None:
    """Positions `from_N` by their keys in [0, keys), stable."""
    ends_K = np.zeros(keys + 1, np.int64)
    for i in range(len(from_N)):
        ends_K[keys_N[from_N[i]] + 1] += 1
    for k in range(keys):
        ends_K[k + 1] += ends_K[k]
    for i in range(len(from_N)):
        key = keys_N[from_N[i]]
        to_N[ends_K[key]] = from_N[i]
        ends_K[key] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply_add(x_IK: Floats, y_KJ: Floats, out_IJ: Floats) -> None:
    """out += x @ y. Four products at a time: an element of `out` is loaded and stored a quarter as often."""
    depth, width = y_KJ.shape
    whole = depth // 4 * 4
    for i in range(x_IK.shape[0]):
        out_J = out_IJ[i]
        for k in range(0, whole, 4):
            x0, x1, x2, x3 = x_IK[i, k], x_IK[i, k + 1], x_IK[i, k + 2], x_IK[i, k + 3]
            y0_J, y1_J, y2_J, y3_J = y_KJ[k], y_KJ[k + 1], y_KJ[k + 2], y_KJ[k + 3]
            for j in range(width):
                out_J[j] += x0 * y0_J[j] + x1 * y1_J[j] + x2 * y2_J[j] + x3 * y3_J[j]
        for k in range(whole, depth):
            x0, y0_J = x_IK[i, k], y_KJ[k]
            for j in range(width):
                out_J[j] += x0 * y0_J[j]


@njit(cache=True, nogil=True, error_model="numpy")
def _transpose(x_IJ: Floats, out_JI: Floats) -> None:
    for i in range(x_IJ.shape[0]):
        for j in range(x_IJ.shape[1]):
            out_JI[j, i] = x_IJ[i, j]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _slice(rows_SW: Floats, at: int, height: int, width: int) -> Floats:
    """The slice of a core as a matrix."""
    matrix_HJ: Floats = rows_SW[at][: height * width].reshape(height, width)
    return matrix_HJ


@njit(cache=True, nogil=True, error_model="numpy")
def pairs_forward(
    left_LW: Floats, middle_MW: Floats, dims: Dims, left_P: Ints, middle_P: Ints, first: int, last: int, out_PW: Floats
) -> None:
    """out[p] = left @ middle, as [a, b * S], of pairs [first, last)."""
    a, r, b, s, _ = dims
    out_PW[first:last] = 0
    for p in range(first, last):
        left_AR, middle_RJ = _slice(left_LW, left_P[p], a, r), _slice(middle_MW, middle_P[p], r, b * s)
        _multiply_add(left_AR, middle_RJ, _slice(out_PW, p, a, b * s))


@njit(cache=True, nogil=True, error_model="numpy")
def forward(
    left_LW: Floats,
    middle_MW: Floats,
    right_TW: Floats,
    dims: Dims,
    left_P: Ints,
    middle_P: Ints,
    starts_P: Ints,
    right_N: Ints,
    places_N: Ints,
    first: int,
    last: int,
    out_ND: Floats,
) -> None:
    """Rows of pairs [first, last), each written to its place in the batch. right_N is by place, as the batch has it."""
    a, r, b, s, c = dims
    pair_1J, pair_SX = np.empty((1, a * b * s), left_LW.dtype), np.empty((s, a * b), left_LW.dtype)
    row_ZX = np.empty((c, a * b), left_LW.dtype)
    for p in range(first, last):
        pair_1J[:] = 0
        left_AR, middle_RJ = _slice(left_LW, left_P[p], a, r), _slice(middle_MW, middle_P[p], r, b * s)
        _multiply_add(left_AR, middle_RJ, _slice(pair_1J, 0, a, b * s))
        _transpose(_slice(pair_1J, 0, a * b, s), pair_SX)  # so that the product below runs along a * b, not c
        for i in range(starts_P[p], starts_P[p + 1]):
            place = places_N[i]
            row_ZX[:] = 0
            _multiply_add(_slice(right_TW, right_N[place], c, s), pair_SX, row_ZX)
            _transpose(row_ZX, _slice(out_ND, place, a * b, c))


@njit(cache=True, nogil=True, error_model="numpy")
def backward(
    left_LW: Floats,
    middle_MW: Floats,
    right_TW: Floats,
    dims: Dims,
    left_P: Ints,
    middle_P: Ints,
    starts_P: Ints,
    right_N: Ints,
    places_N: Ints,
    first: int,
    last: int,
    grads_ND: Floats,
    left_at_L: Ints,
    middle_at_M: Ints,
    right_at_T: Ints,
    left_grads_LJ: Floats,
    middle_grads_MJ: Floats,
    right_grads_TJ: Floats,
) -> None:
    """Adds to the cores' gradients what the gradients of the rows of pairs [first, last) come to. The gradient of slice
    l of the left core is at left_at_L[l] of left_grads_LJ, and so on."""
    a, r, b, s, c = dims
    kind = left_LW.dtype
    pair_1J, pair_grads_1J = np.empty((1, a * b * s), kind), np.empty((1, a * b * s), kind)
    left_RA, middle_JR, row_grads_ZX = np.empty((r, a), kind), np.empty((b * s, r), kind), np.empty((c, a * b), kind)
    for p in range(first, last):
        left_AR, middle_RJ = _slice(left_LW, left_P[p], a, r), _slice(middle_MW, middle_P[p], r, b * s)
        if p == first or middle_P[p] != middle_P[p - 1]:
            _transpose(middle_RJ, middle_JR)
        pair_1J[:], pair_grads_1J[:] = 0, 0
        _multiply_add(left_AR, middle_RJ, _slice(pair_1J, 0, a, b * s))
        for i in range(starts_P[p], starts_P[p + 1]):
            place = places_N[i]
            right = right_N[place]
            row_grads_XZ = _slice(grads_ND, place, a * b, c)
            _transpose(row_grads_XZ, row_grads_ZX)
            at = right_at_T[right]
            _multiply_add(row_grads_ZX, _slice(pair_1J, 0, a * b, s), _slice(right_grads_TJ, at, c, s))
            _multiply_add(row_grads_XZ, _slice(right_TW, right, c, s), _slice(pair_grads_1J, 0, a * b, s))
        _transpose(left_AR, left_RA)
        pair_grads_AJ = _slice(pair_grads_1J, 0, a, b * s)
        _multiply_add(left_RA, pair_grads_AJ, _slice(middle_grads_MJ, middle_at_M[middle_P[p]], r, b * s))
        _multiply_add(pair_grads_AJ, middle_JR, _slice(left_grads_LJ, left_at_L[left_P[p]], a, r))


@njit(cache=True, nogil=True, error_model="numpy")
def pairs_backward(
    left_LW: Floats,
    middle_MW: Floats,
    dims: Dims,
    left_P: Ints,
    middle_P: Ints,
    first: int,
    last: int,
    grads_PJ: Floats,
    left_at_L: Ints,
    middle_at_M: Ints,
    left_grads_LJ: Floats,
    middle_grads_MJ: Floats,
) -> None:
    """The same for `pairs_forward`: grads_PJ are those of its results."""
    a, r, b, s, _ = dims
    left_RA, middle_JR = np.empty((r, a), left_LW.dtype), np.empty((b * s, r), left_LW.dtype)
    for p in range(first, last):
        left_AR, middle_RJ = _slice(left_LW, left_P[p], a, r), _slice(middle_MW, middle_P[p], r, b * s)
        if p == first or middle_P[p] != middle_P[p - 1]:
            _transpose(middle_RJ, middle_JR)
        _transpose(left_AR, left_RA)
        pair_grads_AJ = _slice(grads_PJ, p, a, b * s)
        _multiply_add(left_RA, pair_grads_AJ, _slice(middle_grads_MJ, middle_at_M[middle_P[p]], r, b * s))
        _multiply_add(pair_grads_AJ, middle_JR, _slice(left_grads_LJ, left_at_L[left_P[p]], a, r))
