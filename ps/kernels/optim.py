"""Fused optimizer steps, in place in the arena: each row is read and written once.

rows_SW float32 [S, W]: the value [D], then the state, side by side. slots_N are unique. Arithmetic is float32 in the order
written, without contraction or reassociation, so every machine computes the same bytes.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from ps.kernels.prefetch import prefetch_row

Rows = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]

LANES = 8
"""Partial sums of a row-wise mean: element j goes to lane j % 8; the lanes are added pairwise."""


@njit(cache=True, nogil=True)
def update_sgd(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32) -> None:
    """w -= lr * g. W = D."""
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        s = slots_N[i]
        for j in range(grads_ND.shape[1]):
            rows_SW[s, j] -= lr * grads_ND[i, j]


@njit(cache=True, nogil=True)
def update_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> None:
    """h += g*g; w -= lr * g / (sqrt(h) + eps). State h [D] (Duchi et al. 2011; torch.optim.Adagrad)."""
    dim = grads_ND.shape[1]
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row = rows_SW[slots_N[i]]
        for j in range(dim):
            g = grads_ND[i, j]
            h = row[dim + j] + g * g
            row[dim + j] = h
            row[j] -= lr * g / (np.float32(math.sqrt(h)) + eps)


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True)
def update_rowwise_adagrad(rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: np.float32, eps: np.float32) -> None:
    """h += mean(g*g); w -= (lr / (sqrt(h) + eps)) * g. State h [1] (FBGEMM's exact row-wise Adagrad)."""
    dim = grads_ND.shape[1]
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        s = slots_N[i]
        h = rows_SW[s, dim] + _mean_square(grads_ND[i])
        rows_SW[s, dim] = h
        scale = lr / (np.float32(math.sqrt(h)) + eps)
        for j in range(dim):
            rows_SW[s, j] -= scale * grads_ND[i, j]


@njit(cache=True, nogil=True)
def update_adam(
    rows_SW: Rows, slots_N: Slots, grads_ND: Rows, lr: float, beta1: float, beta2: float, eps: float, step: int
) -> None:
    """m = b1*m + (1-b1)*g; v = b2*v + (1-b2)*g*g; w -= lr * sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps).

    State m [D], v [D]. Kingma and Ba 2015, last paragraph of section 2, as torch.optim.SparseAdam: eps is added before the
    bias correction, t is `step`, from 1.
    """
    dim = grads_ND.shape[1]
    size = np.float32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    keep1, keep2 = np.float32(beta1), np.float32(beta2)
    add1, add2, tiny = np.float32(1.0 - beta1), np.float32(1.0 - beta2), np.float32(eps)
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row = rows_SW[slots_N[i]]
        for j in range(dim):
            g = grads_ND[i, j]
            m = keep1 * row[dim + j] + add1 * g
            v = keep2 * row[2 * dim + j] + add2 * (g * g)
            row[dim + j] = m
            row[2 * dim + j] = v
            row[j] -= size * m / (np.float32(math.sqrt(v)) + tiny)


@njit(cache=True, nogil=True)
def update_ftrl(
    rows_SW: Rows,
    slots_N: Slots,
    grads_ND: Rows,
    alpha: np.float32,
    beta: np.float32,
    l1: np.float32,
    l2: np.float32,
) -> None:
    """FTRL-Proximal with per-coordinate rates (McMahan et al. 2013, Algorithm 1). State z [D], n [D].

    sigma = (sqrt(n + g*g) - sqrt(n)) / alpha; z += g - sigma*w; n += g*g;
    w = 0 if |z| <= l1, else -(z - sign(z)*l1) / ((beta + sqrt(n)) / alpha + l2).
    """
    dim = grads_ND.shape[1]
    zero = np.float32(0.0)
    for i in range(len(slots_N)):
        prefetch_row(rows_SW, slots_N, i, rows_SW.shape[1])
        row = rows_SW[slots_N[i]]
        for j in range(dim):
            g = grads_ND[i, j]
            before = row[2 * dim + j]
            after = before + g * g
            root = np.float32(math.sqrt(after))
            sigma = (root - np.float32(math.sqrt(before))) / alpha
            z = row[dim + j] + (g - sigma * row[j])
            row[dim + j] = z
            row[2 * dim + j] = after
            if abs(z) <= l1:
                row[j] = zero
            else:
                shrunk = z - l1 if z > zero else z + l1
                row[j] = -shrunk / ((beta + root) / alpha + l2)
