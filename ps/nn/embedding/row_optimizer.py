"""A collection as a torch optimizer, for code that takes one, above all `torch.amp.GradScaler`.

    scaler.scale(loss).backward()
    scaler.step(dense_optimizer)
    scaler.step(embeddings.optimizer)
    scaler.update()

The optimizers themselves run on the shards, with the settings of each `TableConfig`: no learning rate is here, and no
scheduler can change one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import nn

from ps.errors import InvalidArgument


class Steps(Protocol):
    """The part of a collection that its optimizer uses."""

    def step(self) -> None:
        """Pushes the gradients that wait."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients that wait."""


class RowOptimizer(torch.optim.Optimizer):
    """The optimizer of one collection. Its parameters are stand-ins, whose `.grad` are the gradients that wait."""

    _step_supports_amp_scaling = True
    """Makes GradScaler call `step` after an overflow too, with `found_inf`: the waiting gradients must be dropped then,
    and a trainer of a synchronous group must make the step all the same."""

    def __init__(self, collection: Steps, stand_ins: Iterable[nn.Parameter]) -> None:
        super().__init__(list(stand_ins), {})
        self._collection = collection

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes the collection's step. If a GradScaler calls it, gradients are divided by its scale first; if one of
        them is infinite or NaN, the step is made without gradients."""
        loss = None if closure is None else closure()
        found_inf, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if found_inf:
            self._collection.zero_grad()
        elif scale is not None:
            factor = scale.double().reciprocal().float()
            for stand_in in self.param_groups[0]["params"]:
                if stand_in.grad is not None:
                    stand_in.grad.mul_(factor)
        self._collection.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients that wait."""
        self._collection.zero_grad(set_to_none)


def check_no_scaler() -> None:
    """Raises InvalidArgument if a GradScaler is in use in this process. A step that goes past the scaler would push
    gradients that are too large by the scale, and nothing in a gradient shows that. The check takes some 100 ms for a
    million objects."""
    if any(scaler.is_enabled() for scaler in known_scalers()):
        raise InvalidArgument(
            "a torch.amp.GradScaler is in use, and the collection's step() does not know of it: a scaled loss gives "
            "rows gradients that are too large. Call scaler.step(collection.optimizer) in place of it; or "
            "collection.optimizer.step(), if the scaler is of another loss"
        )


def known_scalers() -> list[torch.amp.GradScaler]:
    """Returns every GradScaler of this process. An object refers to its class, so scalers are found among the objects
    that refer to GradScaler. To go through all objects (`gc.get_objects`) would be slower, and a list of them breaks
    other threads: one that is just making a tuple from a generator fails if the unfinished tuple is referred to
    elsewhere."""
    found = gc.get_referrers(*with_subclasses(torch.amp.GradScaler))
    return [known for known in found if isinstance(known, torch.amp.GradScaler)]


def with_subclasses(base: type[Any]) -> Iterator[type[Any]]:
    """Yields the class and all classes that are derived from it."""
    yield base
    for derived in base.__subclasses__():
        yield from with_subclasses(derived)
