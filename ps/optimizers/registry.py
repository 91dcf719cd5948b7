"""All optimizers, by kind: every file of this folder that defines one. They are checked when this module is
imported."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import ps.optimizers
from ps.optimizers.base import Optimizer

NOT_OPTIMIZERS = {"base", "arithmetic", "registry", "reference"}
LEADING = ["rows_SW", "slots_N", "grads_ND"]
"""The first arguments of every update function."""


@dataclass(frozen=True)
class Entry:
    """One optimizer: its class and its arithmetic."""

    config: type[Optimizer]
    update: Callable[..., int]
    """The arithmetic, as it is written in the optimizer's file."""
    reference_module: str

    def reference(self) -> Callable[..., int]:
        """Returns the same arithmetic in numpy."""
        update: Callable[..., int] = importlib.import_module(self.reference_module).update
        return update


def entry(module: ModuleType) -> Entry:
    """Returns the optimizer of a file. Raises TypeError, which says what the file lacks."""
    package, _, kind = module.__name__.rpartition(".")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Optimizer) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} defines {len(found)} subclasses of Optimizer: it must be one")
    (config,) = found
    if missing := sorted(config.__abstractmethods__):
        raise TypeError(f"{module.__name__}: {config.__name__} lacks {', '.join(missing)}")
    if config.model_fields["kind"].default != kind:
        raise TypeError(f"{module.__name__}: its kind, by which users name it, must be the file's name, {kind!r}")
    reference = f"{package}.reference.{kind}"
    if find_spec(reference) is None:
        raise TypeError(f"{module.__name__} has no reference: write its update in numpy, as {reference}")
    checked = Entry(config, getattr(module, "update", _nothing), reference)
    _check_arithmetic(module.__name__, config.model_validate({}), checked.update)
    return checked


def _nothing() -> int:
    """Stands in for an update that a file does not have."""
    return 0


def _check_arithmetic(name: str, optimizer: Optimizer, update: Callable[..., Any]) -> None:
    """Raises TypeError if the parts of an optimizer do not fit each other."""
    given = list(inspect.signature(update).parameters)
    arguments = optimizer.arguments(1)
    if given[:3] != LEADING or len(given) != len(LEADING) + len(arguments):
        raise TypeError(
            f"{name}: update({', '.join(given)}) must take {', '.join(LEADING)} and then the {len(arguments)} that "
            "`arguments` returns"
        )
    if others := sorted(set(optimizer.changeable) - set(type(optimizer).model_fields)):
        raise TypeError(f"{name}: `changeable` names {', '.join(others)}, which are no settings of it")
    dim = 8
    state, half = optimizer.state_width(dim), optimizer.half(dim)
    if sum(half) != dim + state or half.half < dim:
        raise TypeError(
            f"{name}: half({dim}) is {half}: it must keep {dim} floats of value in binary16 and {state} of state"
        )


def _all() -> dict[str, Entry]:
    names = [file.name for file in pkgutil.iter_modules(ps.optimizers.__path__) if file.name not in NOT_OPTIMIZERS]
    return {name: entry(importlib.import_module(f"{ps.optimizers.__name__}.{name}")) for name in names}


OPTIMIZERS = _all()
"""The optimizers by kind."""
