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

from ps.config import MIN_FLOAT32, CoreOptimizer
from ps.kernels.updates.optim import UpdateRule, update_rule
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
    aligned = optimizer.core_alignment
    assert aligned is not None, "refused by TableConfig"
    return [math.sqrt(1 + aligned * before * after * q / shape.dim) for _, before, q, after in shape.cores]


def _divided(optimizer: CoreOptimizer, gain: float) -> CoreOptimizer:
    """The optimizer at a rate divided by a gain, with all that is measured in its steps."""
    settings = optimizer.model_dump()
    changed: dict[str, float] = {
        name: max(settings[name] / gain, MIN_FLOAT32)
        for name in ("lr", "eps")
        if settings.get(name)  # a rate of 0 stays 0
    }
    if "initial_accumulator" in settings:
        changed["initial_accumulator"] = settings["initial_accumulator"] / gain**2
    return optimizer.model_copy(update=changed)
