"""Optimizers: how much state a row carries and which kernel updates it.

Duplicates inside one push are summed before they come here; two pushes of one id are two updates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.config import FTRL, SGD, Adagrad, Adam, Optimizer, RowwiseAdagrad
from ps.kernels.updates import optim as kernels

F32 = np.float32
Update = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32], int], int]


@dataclass(frozen=True)
class UpdateRule:
    """An optimizer for rows of one width."""

    state_width: int
    """float32 of state beside each row's value."""
    initial_state: float
    """What each of them starts at."""
    update: Update
    """update(rows_SW, slots_N, grads_ND, step): in place; slots are unique; `step` is the optimizer's, from 1. How many
    rows may not be finite afterwards, see `ps.kernels.updates.optim`."""


def update_rule(optimizer: Optimizer, dim: int) -> UpdateRule:
    """The rule for rows with values of `dim` floats."""
    match optimizer:
        case SGD(lr=lr):
            return UpdateRule(0, 0.0, lambda rows, slots, grads, step: kernels.update_sgd(rows, slots, grads, F32(lr)))
        case Adagrad(lr=lr, eps=eps, initial_accumulator=start):
            return UpdateRule(
                dim,
                start,
                lambda rows, slots, grads, step: kernels.update_adagrad(rows, slots, grads, F32(lr), F32(eps)),
            )
        case RowwiseAdagrad(lr=lr, eps=eps, initial_accumulator=start):
            return UpdateRule(
                1,
                start,
                lambda rows, slots, grads, step: kernels.update_rowwise_adagrad(rows, slots, grads, F32(lr), F32(eps)),
            )
        case Adam(lr=lr, beta1=beta1, beta2=beta2, eps=eps):
            return UpdateRule(
                2 * dim,
                0.0,
                lambda rows, slots, grads, step: kernels.update_adam(rows, slots, grads, lr, beta1, beta2, eps, step),
            )
        case FTRL(alpha=alpha, beta=beta, l1=l1, l2=l2):
            return UpdateRule(
                2 * dim,
                0.0,
                lambda rows, slots, grads, step: kernels.update_ftrl(
                    rows, slots, grads, F32(alpha), F32(beta), F32(l1), F32(l2)
                ),
            )
