"""The arithmetic of the optimizers of cores, in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from torch import Tensor

from ps.config import SGD, Adagrad, CoreOptimizer, RowwiseAdagrad

SliceUpdate = Callable[[Tensor, Tensor], None]
"""update(rows_NW, grads_NJ): in place; behind the value lies the state, behind that perhaps what nobody reads."""


def update_of(optimizer: CoreOptimizer | None) -> SliceUpdate:
    """Returns the arithmetic of `ps.kernels.updates.optim`, within float32's rounding."""
    match optimizer:
        case SGD(lr=lr):
            return partial(_sgd, lr=_f32(lr))
        case Adagrad(lr=lr, eps=eps):
            return partial(_adagrad, lr=_f32(lr), eps=_f32(eps))
        case RowwiseAdagrad(lr=lr, eps=eps):
            return partial(_rowwise_adagrad, lr=_f32(lr), eps=_f32(eps))
        case None:
            return _refuse


def _refuse(*_: object) -> None:
    raise AssertionError("cores without an optimizer are updated from outside")


def _sgd(rows_NW: Tensor, grads_NJ: Tensor, *, lr: float) -> None:
    rows_NW -= lr * grads_NJ


def _adagrad(rows_NW: Tensor, grads_NJ: Tensor, *, lr: float, eps: float) -> None:
    size = grads_NJ.shape[1]
    w, h = rows_NW[:, :size], rows_NW[:, size : 2 * size]
    h += grads_NJ * grads_NJ
    w -= lr * grads_NJ / (h.sqrt() + eps)


def _rowwise_adagrad(rows_NW: Tensor, grads_NJ: Tensor, *, lr: float, eps: float) -> None:
    size = grads_NJ.shape[1]
    w, h = rows_NW[:, :size], rows_NW[:, size : size + 1]
    h += (grads_NJ * grads_NJ).mean(dim=1, keepdim=True)
    w -= lr / (h.sqrt() + eps) * grads_NJ


def _f32(value: float) -> float:
    """What the kernels are given."""
    return float(np.float32(value))
