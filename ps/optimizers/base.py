"""The base class of all optimizers of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from ps.errors import ConfigError
from ps.quoting import shown
from ps.values.frozen import Frozen

if TYPE_CHECKING:
    from torch import Tensor


class Half(NamedTuple):
    """How a row is kept with 16 bits an element: the lengths of its parts, one after the other."""

    half: int
    """Elements in binary16: the value, and state that needs its precision."""
    brain: int = 0
    """Elements in bfloat16, which has the range of float32: state that only scales a step."""
    full: int = 0
    """Numbers that stay float32: state of which a row has only one number."""


class Optimizer(Frozen, ABC):
    """An optimizer with its settings. Its file also has the arithmetic, as the function `update`:

        update(rows_SW, slots_N, grads_ND, *arguments) -> int

    It works in place: rows_SW float32 [S, W] has the value [D] and then the state side by side, slots_N int64 [N] are
    unique and in [0, S), grads_ND is float32 [N, D], and `arguments` returns the others. `update` checks none of this.
    Arithmetic is float32 in the order written, so every machine computes the same bytes. It returns how many rows may
    have a value or state that is not finite; overflows are detected in no other way.
    """

    kind: str

    core_alignment: ClassVar[float | None] = None
    """By how much the steps of a row's elements add up if the row is made of cores (see `ps.tensor_train.rates`); the
    settings that then follow the rate are lr, eps and initial_accumulator. None: this optimizer cannot train cores."""

    changeable: ClassVar[tuple[str, ...]] = ()
    """The settings that may change while there are rows: those that only a step depends on, and no state of a row."""

    def having(self, settings: Mapping[str, float]) -> Self:
        """Returns this optimizer with other values of changeable settings. Raises ConfigError."""
        others = [name for name in settings if name not in self.changeable]
        may = f"what may change of {self.kind} is {', '.join(self.changeable) or 'nothing'}"
        if others and others[0] in type(self).model_fields:
            raise ConfigError(
                f"{type(self).__name__}: {others[0]} cannot change while there are rows, whose state was made with it; "
                f"{may}. For another {others[0]} create another table"
            )
        if others:
            raise ConfigError(f"{type(self).__name__}: no setting {shown(others[0])}; {may}")
        if not settings:
            raise ConfigError(f"{type(self).__name__}: no settings given; {may}")
        return type(self)(**{**self.model_dump(), **settings})

    @abstractmethod
    def state_width(self, dim: int) -> int:
        """Returns how many floats of state a row has beside a value of `dim` floats."""

    @property
    def initial_state(self) -> float:
        """Returns the initial value of each float of state."""
        return 0.0

    @abstractmethod
    def arguments(self, step: int) -> tuple[Any, ...]:
        """Returns what `update` takes behind the gradients. step: the number of the table's step, from 1."""

    @abstractmethod
    def half(self, dim: int) -> Half:
        """Returns how a row is kept with 16 bits an element: the parts of its value and of all its state."""

    @abstractmethod
    def rowwise(self) -> Optimizer | None:
        """Returns an optimizer that trains rows whose state is at most one number in place of this one; None if there
        is none."""

    @abstractmethod
    def on_device(self, rows_NW: Tensor, grads_ND: Tensor, step: int) -> None:
        """Updates rows that torch holds, in place, as `update` does: within 1e-6, not to the bit. It uses only methods
        of the tensors, so that torch is not imported."""


def f32(value: float) -> float:
    """Returns a setting rounded to float32, as a kernel gets it, for arithmetic on tensors."""
    return float(np.float32(value))
