"""Optimizers of rows: what a user may set of each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ps.config.base import Beta, Frozen, NonNegative, Positive


class SGD(Frozen):
    """w -= lr * g. No state."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.01


class Adagrad(Frozen):
    """h += g*g; w -= lr * g / (sqrt(h) + eps), as torch.optim.Adagrad. State: dim floats a row."""

    kind: Literal["adagrad"] = "adagrad"
    lr: Positive = 0.01
    eps: Positive = 1e-10
    initial_accumulator: NonNegative = 0.0
    """h of a new row."""


class RowwiseAdagrad(Frozen):
    """h += mean(g*g); w -= lr * g / (sqrt(h) + eps): one float of state a row (FBGEMM's exact row-wise Adagrad)."""

    kind: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: Positive = 0.01
    eps: Positive = 1e-8
    initial_accumulator: NonNegative = 0.0
    """h of a new row."""


class Adam(Frozen):
    """Lazy Adam, as torch.optim.SparseAdam: moments of a row move only when it is pushed; the bias correction goes by
    the pushes of the whole table (docs/decisions/0017-steps-of-adam.md). State: 2 * dim floats a row."""

    kind: Literal["adam"] = "adam"
    lr: Positive = 0.001
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    eps: Positive = 1e-8


class FTRL(Frozen):
    """FTRL-Proximal (McMahan et al. 2013, Algorithm 1), sparse by l1. State: 2 * dim floats a row."""

    kind: Literal["ftrl"] = "ftrl"
    alpha: Positive = 0.05
    beta: Positive = 1.0
    l1: NonNegative = 0.0
    l2: NonNegative = 0.0


Optimizer = Annotated[SGD | Adagrad | RowwiseAdagrad | Adam | FTRL, Field(discriminator="kind")]
CoreOptimizer = Annotated[SGD | Adagrad | RowwiseAdagrad, Field(discriminator="kind")]
