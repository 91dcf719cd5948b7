"""Tensor-train rows: products of three cores, forward and backward, and the order that shares their leading part.

Three cores stand for a table of rows of D = a * b * c floats. For a row whose digits are (l, m, t), in paper notation
with ranks R and S (Yin et al., "TT-Rec", MLSys 2021, section 3):

    row[x, y, z] = sum over r, s of left[l, x, r] * middle[m, r, y, s] * right[t, s, z]

What the arrays here have, a slice of a core and what follows it (an optimizer's state), which is left alone:

    left_LKR    [l, >= a, R]
    middle_MW   [m, >= R * b * S]
    right_TKS   [t, >= c, S]: the last core lies transposed, so that inner loops run along S

A slice of the outer cores is an index away; one of the middle core takes a reshape, which numba makes in 20 ns, as long
as half a small product.

Rows of a batch come in the order of (m, l), so that the product of left and middle is computed once for all rows that
share it, stays in the first cache while they do, and the middle slice, the large one, while its rows last. A *pair* is
a (l, m) that occurs. So a row costs, in multiplications, a * b * c * S and its share of a * R * b * S.

Arithmetic is in the type of the arrays and in the order written: every machine computes the same bytes. Nothing is
checked here.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Floats, Ints
from ps.kernels.kernel import helper, kernel

Dims = tuple[int, int, int, int, int]
"""(a, R, b, S, c)"""


@kernel(error_model="numpy")
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


@helper(inline=False, error_model="numpy")
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


@helper(inline=False, error_model="numpy")
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


@helper(inline=False, error_model="numpy")
def _transpose(x_IJ: Floats, out_JI: Floats) -> None:
    for i in range(x_IJ.shape[0]):
        for j in range(x_IJ.shape[1]):
            out_JI[j, i] = x_IJ[i, j]


@helper(error_model="numpy")
def _slice(middle_MW: Floats, at: int, height: int, width: int) -> Floats:
    """A slice of the middle core as a matrix."""
    matrix_RJ: Floats = middle_MW[at][: height * width].reshape(height, width)
    return matrix_RJ


@kernel(error_model="numpy")
def pairs_forward(
    left_LKR: Floats, middle_MW: Floats, dims: Dims, left_P: Ints, middle_P: Ints, first: int, last: int, out_PJ: Floats
) -> None:
    """out[p] = left @ middle, as [a, b * S], of pairs [first, last)."""
    a, r, b, s, _ = dims
    out_PAJ = out_PJ.reshape(len(out_PJ), a, b * s)
    out_PAJ[first:last] = 0
    middle_RJ = _slice(middle_MW, middle_P[first], r, b * s)
    for p in range(first, last):
        if p > first and middle_P[p] != middle_P[p - 1]:
            middle_RJ = _slice(middle_MW, middle_P[p], r, b * s)
        _multiply_add(left_LKR[left_P[p]][:a], middle_RJ, out_PAJ[p])


@kernel(error_model="numpy")
def forward(
    left_LKR: Floats,
    middle_MW: Floats,
    right_TKS: Floats,
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
    out_NXZ = out_ND.reshape(len(out_ND), a * b, c)
    pair_XS, pair_SX = np.empty((a * b, s), left_LKR.dtype), np.empty((s, a * b), left_LKR.dtype)
    row_ZX, pair_AJ = np.empty((c, a * b), left_LKR.dtype), pair_XS.reshape(a, b * s)
    middle_RJ = _slice(middle_MW, middle_P[first], r, b * s)
    for p in range(first, last):
        if p > first and middle_P[p] != middle_P[p - 1]:
            middle_RJ = _slice(middle_MW, middle_P[p], r, b * s)
        pair_AJ[:] = 0
        _multiply_add(left_LKR[left_P[p]][:a], middle_RJ, pair_AJ)
        _transpose(pair_XS, pair_SX)  # so that the product below runs along a * b, not c
        for i in range(starts_P[p], starts_P[p + 1]):
            place = places_N[i]
            row_ZX[:] = 0
            _multiply_add(right_TKS[right_N[place]][:c], pair_SX, row_ZX)
            _transpose(row_ZX, out_NXZ[place])


@kernel(error_model="numpy", either="grads_ND")
def backward(
    left_LKR: Floats,
    middle_MW: Floats,
    right_TKS: Floats,
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
    kind = left_LKR.dtype
    grads_NXZ = grads_ND.reshape(len(grads_ND), a * b, c)
    left_grads_LAR = left_grads_LJ.reshape(len(left_grads_LJ), a, r)
    middle_grads_MRJ = middle_grads_MJ.reshape(len(middle_grads_MJ), r, b * s)
    right_grads_TZS = right_grads_TJ.reshape(len(right_grads_TJ), c, s)
    pair_XS, pair_grads_XS = np.empty((a * b, s), kind), np.empty((a * b, s), kind)
    pair_AJ, pair_grads_AJ = pair_XS.reshape(a, b * s), pair_grads_XS.reshape(a, b * s)
    left_RA, middle_JR, row_grads_ZX = np.empty((r, a), kind), np.empty((b * s, r), kind), np.empty((c, a * b), kind)
    middle_RJ = _slice(middle_MW, middle_P[first], r, b * s)
    for p in range(first, last):
        left_AR = left_LKR[left_P[p]][:a]
        if p == first or middle_P[p] != middle_P[p - 1]:
            middle_RJ = _slice(middle_MW, middle_P[p], r, b * s)
            _transpose(middle_RJ, middle_JR)
        pair_AJ[:], pair_grads_AJ[:] = 0, 0
        _multiply_add(left_AR, middle_RJ, pair_AJ)
        for i in range(starts_P[p], starts_P[p + 1]):
            place = places_N[i]
            right = right_N[place]
            _transpose(grads_NXZ[place], row_grads_ZX)
            _multiply_add(row_grads_ZX, pair_XS, right_grads_TZS[right_at_T[right]])
            _multiply_add(grads_NXZ[place], right_TKS[right][:c], pair_grads_XS)
        _transpose(left_AR, left_RA)
        _multiply_add(left_RA, pair_grads_AJ, middle_grads_MRJ[middle_at_M[middle_P[p]]])
        _multiply_add(pair_grads_AJ, middle_JR, left_grads_LAR[left_at_L[left_P[p]]])


@kernel(error_model="numpy")
def pairs_backward(
    left_LKR: Floats,
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
    """Runs `pairs_forward` backward: grads_PJ are the gradients of its results."""
    a, r, b, s, _ = dims
    grads_PAJ = grads_PJ.reshape(len(grads_PJ), a, b * s)
    left_grads_LAR = left_grads_LJ.reshape(len(left_grads_LJ), a, r)
    middle_grads_MRJ = middle_grads_MJ.reshape(len(middle_grads_MJ), r, b * s)
    left_RA, middle_JR = np.empty((r, a), left_LKR.dtype), np.empty((b * s, r), left_LKR.dtype)
    for p in range(first, last):
        if p == first or middle_P[p] != middle_P[p - 1]:
            _transpose(_slice(middle_MW, middle_P[p], r, b * s), middle_JR)
        _transpose(left_LKR[left_P[p]][:a], left_RA)
        _multiply_add(left_RA, grads_PAJ[p], middle_grads_MRJ[middle_at_M[middle_P[p]]])
        _multiply_add(grads_PAJ[p], middle_JR, left_grads_LAR[left_at_L[left_P[p]]])
