"""A collection as a torch optimizer: for what takes one, above all `torch.amp.GradScaler`.

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
    """A collection, as far as its optimizer knows it."""

    def step(self) -> None:
        """Pushes what waits."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops it."""


class RowOptimizer(torch.optim.Optimizer):
    """The optimizer of one collection. Its parameters are stand-ins, whose `.grad` are the gradients that wait."""

    _step_supports_amp_scaling = True
    """Makes GradScaler call `step` after an overflow too, with `found_inf`: what waits must be dropped then, and
    trainers in step must make a step all the same."""

    def __init__(self, collection: Steps, stand_ins: Iterable[nn.Parameter]) -> None:
        super().__init__(list(stand_ins), {})
        self._collection = collection

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """The collection's `step`. Called by a GradScaler: of gradients divided by its scale, or, if one is infinite or
        NaN, without gradients."""
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
    """Raises InvalidArgument if a GradScaler is in use in this process. Whoever steps without it pushes gradients that
    are as many times too large as its scale, and nothing that a gradient carries tells of that. Takes some 100 ms for a
    million objects."""
    if any(scaler.is_enabled() for scaler in known_scalers()):
        raise InvalidArgument(
            "a torch.amp.GradScaler is in use, and the collection's step() does not know of it: a scaled loss gives "
            "rows gradients that are too large. Call scaler.step(collection.optimizer) in place of it; or "
            "collection.optimizer.step(), if the scaler is of another loss"
        )


def known_scalers() -> list[torch.amp.GradScaler]:
    """Returns every GradScaler of this process. An object refers to its class, so these are among what refers to one.
    All objects (`gc.get_objects`) would be slower to go through, and a list of them breaks other threads: one that is
    just making a tuple of what a generator yields fails if anybody else has hold of that tuple."""
    found = gc.get_referrers(*with_subclasses(torch.amp.GradScaler))
    return [known for known in found if isinstance(known, torch.amp.GradScaler)]


def with_subclasses(base: type[Any]) -> Iterator[type[Any]]:
    """Yields the class and all that are derived from it."""
    yield base
    for derived in base.__subclasses__():
        yield from with_subclasses(derived)
