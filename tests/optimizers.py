"""All optimizers that there are, for tests that hold for each: a new one is found by itself."""

from __future__ import annotations

from collections.abc import Callable

from ps.arrays import Rows, Slots
from ps.optimizers.base import Optimizer
from ps.optimizers.registry import OPTIMIZERS

SETTINGS: dict[str, dict[str, float]] = {
    "sgd": {"lr": 0.5},
    "adagrad": {"lr": 0.3, "eps": 1e-6, "initial_accumulator": 0.1},
    "rowwise_adagrad": {"lr": 0.3, "eps": 1e-6, "initial_accumulator": 0.2},
    "adam": {"lr": 0.01},
    "ftrl": {"alpha": 0.1, "l1": 0.02, "l2": 0.01},
}
"""Larger steps than by default, so that a few pushes show."""

EVERY: dict[str, Optimizer] = {
    kind: entry.config(**SETTINGS.get(kind, {}))  # type: ignore[arg-type]
    for kind, entry in OPTIMIZERS.items()
}
ROWWISE = [kind for kind, optimizer in EVERY.items() if optimizer.rowwise() is not None]
"""Those whose cold rows may keep one number of state."""


def specified(optimizer: Optimizer) -> Callable[[Rows, Slots, Rows, int], int]:
    """The update of the reference: update(rows_SW, slots_N, grads_ND, step)."""
    reference = OPTIMIZERS[optimizer.kind].reference()
    return lambda rows, slots, grads, step: reference(rows, slots, grads, *optimizer.arguments(step))
