"""Fused optimizer steps, in place in the arena: each row is read and written once.

rows_SW float32 [S, W]: the value [D], then the state, side by side. slots_N int64 [N], unique and all in [0, S);
grads_ND float32 [N, D]. Nothing of this is checked here. Arithmetic is float32 in the order written, without
contraction or reassociation, so every machine computes the same bytes.

Each returns how many rows may not be finite afterwards, in value or state: nothing else tells of an overflow. Rows
whose value and state add up to more than float32 holds, though neither does, are among them.

`error_model="numpy"`: a division by zero gives infinity or NaN as IEEE 754 has it. Python's model would raise in the
middle of a push, and its test of every divisor keeps the loops from being vectorised (2 to 3 times as slow). For the
same reason the parts of a row are slices: an index like `dim + j` is tested for being negative.
"""

from __future__ import annotations

import math

import numpy as np

from ps.arrays import Rows, Slots
from ps.kernels.bits import float_bits
from ps.kernels.kernel import helper, kernel
from ps.kernels.prefetch import prefetch_row

_MAGNITUDE, _INFINITY, _ZERO = np.int32(0x7FFFFFFF), np.int32(0x7F800000), np.int32(0)

LANES = 8
"""Partial sums of a row-wise mean: element j goes to lane j % 8; the lanes are added pairwise."""


@helper()
def _larger(largest: np.int32, value: np.float32) -> np.int32:
    """The larger magnitude, as bits, whose order is that of magnitudes: infinity is above all, and NaN above that."""
    return max(largest, np.int32(float_bits(value) & _MAGNITUDE))


@kernel(error_model="numpy", either="grads_ND")
def update_sgd(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> int:
    """w -= lr * g. W = D."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        value_D, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        largest = _ZERO
        for j in range(dim):
            value = value_D[j] - lr * grad_D[j]
            value_D[j] = value
            largest = _larger(largest, value)
        broken += int(largest >= _INFINITY)
    return broken


@kernel(error_model="numpy", either="grads_ND")
def update_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """h += g*g; w -= lr * g / (sqrt(h) + eps). State h [D] (Duchi et al. 2011; torch.optim.Adagrad)."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, h_D = row_W[:dim], row_W[dim : 2 * dim]
        largest = _ZERO
        for j in range(dim):
            h = h_D[j] + grad_D[j] * grad_D[j]
            h_D[j] = h
            value = value_D[j] - lr * grad_D[j] / (np.float32(math.sqrt(h)) + eps)
            value_D[j] = value
            largest = _larger(largest, value + h)
        broken += int(largest >= _INFINITY)
    return broken


@helper()
def _mean_square(grad_D: Rows) -> np.float32:
    dim = len(grad_D)
    full = dim // LANES * LANES
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    for j in range(0, full, LANES):
        s0 += grad_D[j] * grad_D[j]
        s1 += grad_D[j + 1] * grad_D[j + 1]
        s2 += grad_D[j + 2] * grad_D[j + 2]
        s3 += grad_D[j + 3] * grad_D[j + 3]
        s4 += grad_D[j + 4] * grad_D[j + 4]
        s5 += grad_D[j + 5] * grad_D[j + 5]
        s6 += grad_D[j + 6] * grad_D[j + 6]
        s7 += grad_D[j + 7] * grad_D[j + 7]
    total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    for j in range(full, dim):
        total += grad_D[j] * grad_D[j]
    return total / np.float32(dim)


@kernel(error_model="numpy", either="grads_ND")
def update_rowwise_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> int:
    """h += mean(g*g); w -= (lr / (sqrt(h) + eps)) * g. State h [1] (FBGEMM's exact row-wise Adagrad)."""
    dim = grads_ND.shape[1]
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        h = row_W[dim] + _mean_square(grad_D)
        row_W[dim] = h
        scale = lr / (np.float32(math.sqrt(h)) + eps)
        largest = _larger(_ZERO, h)
        for j in range(dim):
            value = row_W[j] - scale * grad_D[j]
            row_W[j] = value
            largest = _larger(largest, value)
        broken += int(largest >= _INFINITY)
    return broken


@kernel(error_model="numpy", either="grads_ND")
def update_adam(
    rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> int:
    """m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps).

    State m [D], v [D]. Kingma and Ba 2015, last paragraph of section 2, as torch.optim.SparseAdam: eps is added before
    the bias correction, t is `step`, from 1.
    """
    dim = grads_ND.shape[1]
    size = np.float32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    keep1, keep2 = np.float32(beta1), np.float32(beta2)
    add1, add2, tiny = np.float32(1.0 - beta1), np.float32(1.0 - beta2), np.float32(eps)
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, m_D, v_D = row_W[:dim], row_W[dim : 2 * dim], row_W[2 * dim : 3 * dim]
        largest = _ZERO
        for j in range(dim):
            m = keep1 * m_D[j] + add1 * grad_D[j]
            v = keep2 * v_D[j] + add2 * (grad_D[j] * grad_D[j])
            m_D[j] = m
            v_D[j] = v
            value = value_D[j] - size * m / (np.float32(math.sqrt(v)) + tiny)
            value_D[j] = value
            largest = _larger(largest, value + m + v)
        broken += int(largest >= _INFINITY)
    return broken


@kernel(error_model="numpy", either="grads_ND")
def update_ftrl(
    rows_SW: Rows,
    slots_N: Slots,
    grads_ND: Rows,
    alpha: np.float32,
    beta: np.float32,
    l1: np.float32,
    l2: np.float32,
) -> int:
    """FTRL-Proximal with per-coordinate rates (McMahan et al. 2013, Algorithm 1). State z [D], n [D].

    sigma = (sqrt(n + g*g) - sqrt(n)) / alpha; z += g - sigma*w; n += g*g;
    w = 0 if |z| <= l1, else -(z - sign(z)*l1) / ((beta + sqrt(n)) / alpha + l2).
    """
    dim = grads_ND.shape[1]
    zero = np.float32(0.0)
    broken = 0
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row_W, grad_D = rows_SW[slots_N[i]], grads_ND[i]
        value_D, z_D, n_D = row_W[:dim], row_W[dim : 2 * dim], row_W[2 * dim : 3 * dim]
        largest = _ZERO
        for j in range(dim):
            n = n_D[j] + grad_D[j] * grad_D[j]
            root = np.float32(math.sqrt(n))
            sigma = (root - np.float32(math.sqrt(n_D[j]))) / alpha
            z = z_D[j] + (grad_D[j] - sigma * value_D[j])
            z_D[j] = z
            n_D[j] = n
            shrunk = z - l1 if z > zero else z + l1
            solved = -shrunk / ((beta + root) / alpha + l2)
            value = zero if abs(z) <= l1 else solved  # chosen after both are known: a branch would not vectorise
            value_D[j] = value
            largest = _larger(largest, value + z + n)
        broken += int(largest >= _INFINITY)
    return broken
