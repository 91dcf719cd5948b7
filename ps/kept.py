"""What a component keeps that later answers or later bytes follow from: how it is saved and given back.

A component owns both methods, a few lines in its own file. A name in its state is that of the attribute it is the value
of, without the underscore, and with a dot and more after it where one attribute takes several values. Which components
are saved is on two lists: `ps.table.state` has those of a table, `ps.shard.state` those of a shard. A test walks over
every object of a shard and fails for what changes and is neither saved nor said to need no saving.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from ps.errors import ConfigError

KeptState = Mapping[str, Any]
"""Arrays, whole numbers, float64 numbers, texts and None, by name."""


class Kept(Protocol):
    """A component that keeps state."""

    def state(self) -> KeptState:
        """Returns all that the component keeps. Arrays may be those that it works on, not copies of them: they are good
        until the next write."""

    def restore(self, state: KeptState) -> None:
        """Takes over what `state` has returned, and copies it; this component is as it was made, with the same
        configuration. Raises ConfigError where it cannot have come from such a one."""


class KeepsNothing:
    """A component without state."""

    def state(self) -> KeptState:
        """Returns nothing."""
        return {}

    def restore(self, state: KeptState) -> None:
        """Does nothing."""


def joined(parts: Mapping[str, Kept]) -> dict[str, Any]:
    """Returns the states of several components as one: each name has that of its component and a dot before it."""
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state().items()}


def parted(state: KeptState) -> dict[str, dict[str, Any]]:
    """Returns the states that `joined` has put together, by component; names without a dot are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name, value in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            found.setdefault(first, {})[rest] = value
    return found


def restored(parts: Mapping[str, Kept], state: KeptState) -> None:
    """Gives each component what `joined` has of it."""
    states = parted(state)
    for name, part in parts.items():
        part.restore(states.get(name, {}))


def overwrite(array: npt.NDArray[Any], saved: npt.NDArray[Any]) -> None:
    """Copies a saved array over one of a fixed shape. Raises ConfigError where it is of another shape or type."""
    if array.shape != saved.shape or array.dtype != saved.dtype:
        raise ConfigError(
            f"an array of {saved.dtype}{list(saved.shape)} was saved, and this shard has one of "
            f"{array.dtype}{list(array.shape)}: restore it with the configuration that it was saved with"
        )
    array[...] = saved
