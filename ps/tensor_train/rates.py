"""How fast each core learns, so that a row moves as a row of its own would, at every rank.

An optimizer's rate is what a row's elements move by. A row through cores moves by what its slices add up to. Of the
core that carries the variance, [p, R, q, S], an element of a row of dim D is a sum of R * S entries, and the gradient
of an entry one of D / q elements. The other cores' slices there have norm 1 (`initial`), so with gradients of a row
that are independent and a slice of no state:

    SGD              the Jacobian times its transpose is 1 on average: the row moves by rate * gradient
    Adagrad          every entry moves by the rate, in the direction of its gradient's sign. The row moves by
                     rate * sqrt(1 + (2 / pi) * R * S * q / D), elements' root mean square: as much as R S / (D / q)
                     aligned steps add up to, and what signs, and overlaps of the elements, add at random
    RowwiseAdagrad   entries move by the rate as their root mean square, in their gradient's proportions:
                     rate * sqrt(1 + R * S * q / D)

So the rates are divided by these roots. 1 / sqrt(h) of Adagrad is that of rows again if h and eps are measured in such
steps too: `initial_accumulator` is divided by the square, `eps` by the root. The same for the outer cores, whose R or S
is 1: their entries, of 1 / sqrt(rank), change by about the same share at every rank.
"""

from __future__ import annotations

import math

from ps.config import MIN_FLOAT32, SGD, Adagrad, CoreOptimizer, RowwiseAdagrad
from ps.optim import UpdateRule, update_rule
from ps.tensor_train.shape import TTShape


def core_optimizers(optimizer: CoreOptimizer, shape: TTShape) -> list[CoreOptimizer]:
    """Returns an optimizer for each core, where rows of their own would have `optimizer`."""
    return [_divided(optimizer, gain) for gain in gains(optimizer, shape)]


def core_rules(optimizer: CoreOptimizer, shape: TTShape) -> list[UpdateRule]:
    """Returns the update rules for the slices of each core."""
    optimizers = core_optimizers(optimizer, shape)
    return [update_rule(one, size) for one, size in zip(optimizers, shape.slice_sizes, strict=True)]


def gains(optimizer: CoreOptimizer, shape: TTShape) -> list[float]:
    """Returns how many times the rate a row moves by, through each core alone."""
    match optimizer:
        case SGD():
            aligned = 0.0
        case Adagrad():
            aligned = 2 / math.pi
        case RowwiseAdagrad():
            aligned = 1.0
    return [math.sqrt(1 + aligned * before * after * q / shape.dim) for _, before, q, after in shape.cores]


def _divided(optimizer: CoreOptimizer, gain: float) -> CoreOptimizer:
    changed = {"lr": optimizer.lr / gain}
    if not isinstance(optimizer, SGD):
        changed |= {"eps": optimizer.eps / gain, "initial_accumulator": optimizer.initial_accumulator / gain**2}
        changed["eps"] = max(changed["eps"], MIN_FLOAT32)
    changed["lr"] = max(changed["lr"], MIN_FLOAT32)
    return optimizer.model_copy(update=changed)
