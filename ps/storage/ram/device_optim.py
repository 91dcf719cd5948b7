"""The optimizers on rows that torch holds: `ps.kernels.reference.updates.optim`, in the same order, on the tensors' own
device.

float32; within 1e-6 of the reference, not to the bit: devices add up in an order of their own, and torch's square roots
and quotients may be one unit in the last place off. Works by the methods of the tensors, so torch is not imported here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ps.config import FTRL, SGD, Adagrad, Adam, RowwiseAdagrad, TableConfig

if TYPE_CHECKING:
    from torch import Tensor

DeviceUpdate = Callable[["Tensor", "Tensor", int], None]
"""update(rows_NW, grads_ND, step): in place; `step` is the optimizer's, from 1."""


def device_update(config: TableConfig) -> DeviceUpdate:
    """The update of a table's optimizer."""
    match config.optimizer:
        case SGD(lr=lr):
            return partial(_sgd, lr=_f32(lr))
        case Adagrad(lr=lr, eps=eps):
            return partial(_adagrad, lr=_f32(lr), eps=_f32(eps))
        case RowwiseAdagrad(lr=lr, eps=eps):
            return partial(_rowwise_adagrad, lr=_f32(lr), eps=_f32(eps))
        case Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps):
            return partial(_adam, lr=lr, beta1=beta1, beta2=beta2, eps=_f32(eps))
        case FTRL(alpha=alpha, beta=beta, l1=l1, l2=l2):
            return partial(_ftrl, alpha=_f32(alpha), beta=_f32(beta), l1=_f32(l1), l2=_f32(l2))


def _sgd(rows_NW: Tensor, grads_ND: Tensor, step: int, *, lr: float) -> None:
    rows_NW -= lr * grads_ND


def _adagrad(rows_NW: Tensor, grads_ND: Tensor, step: int, *, lr: float, eps: float) -> None:
    w, h = rows_NW.chunk(2, dim=1)
    h += grads_ND * grads_ND
    w -= lr * grads_ND / (h.sqrt() + eps)


def _rowwise_adagrad(rows_NW: Tensor, grads_ND: Tensor, step: int, *, lr: float, eps: float) -> None:
    dim = grads_ND.shape[1]
    w, h = rows_NW[:, :dim], rows_NW[:, dim:]
    h += (grads_ND * grads_ND).mean(dim=1, keepdim=True)
    w -= lr / (h.sqrt() + eps) * grads_ND


def _adam(rows_NW: Tensor, grads_ND: Tensor, step: int, *, lr: float, beta1: float, beta2: float, eps: float) -> None:
    w, m, v = rows_NW.chunk(3, dim=1)
    size = _f32(lr * math.sqrt(1.0 - beta2**step) / (1.0 - beta1**step))
    m *= _f32(beta1)
    m += _f32(1.0 - beta1) * grads_ND
    v *= _f32(beta2)
    v += _f32(1.0 - beta2) * (grads_ND * grads_ND)
    w -= size * m / (v.sqrt() + eps)


def _ftrl(rows_NW: Tensor, grads_ND: Tensor, step: int, *, alpha: float, beta: float, l1: float, l2: float) -> None:
    w, z, n = rows_NW.chunk(3, dim=1)
    squares_ND = grads_ND * grads_ND
    root = (n + squares_ND).sqrt()
    z += grads_ND - (root - n.sqrt()) / alpha * w
    shrunk = (z - l1).where(z > 0, z + l1)
    w.copy_((-shrunk / ((beta + root) / alpha + l2)).masked_fill(z.abs() <= l1, 0.0))
    n += squares_ND


def _f32(value: float) -> float:
    """What the kernels are given."""
    return float(np.float32(value))
