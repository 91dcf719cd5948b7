"""The optimizers that a table may have: all optimizers of `ps.optimizers`."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ps.optimizers import base
from ps.optimizers.adagrad import Adagrad
from ps.optimizers.adam import Adam
from ps.optimizers.ftrl import FTRL
from ps.optimizers.registry import OPTIMIZERS
from ps.optimizers.rowwise_adagrad import RowwiseAdagrad
from ps.optimizers.sgd import SGD

__all__ = ["FTRL", "SGD", "Adagrad", "Adam", "CoreOptimizer", "Optimizer", "RowwiseAdagrad"]

CORE_OPTIMIZERS = tuple(one.config for one in OPTIMIZERS.values() if one.config.core_alignment is not None)
"""The optimizers that can train the cores of a tensor train."""
CORE_NAMES = " or ".join(", ".join(f"ps.{config.__name__}" for config in CORE_OPTIMIZERS).rsplit(", ", 1))
"""Names of these optimizers, for messages."""


def _one_of(configs: tuple[type[base.Optimizer], ...]) -> Any:
    """Returns the type of a field that takes one of these classes, told apart by `kind`."""
    return Annotated[reduce(or_, configs), Field(discriminator="kind")]


if TYPE_CHECKING:
    Optimizer = base.Optimizer
    CoreOptimizer = base.Optimizer
else:
    Optimizer = _one_of(tuple(one.config for one in OPTIMIZERS.values()))
    CoreOptimizer = _one_of(CORE_OPTIMIZERS)
