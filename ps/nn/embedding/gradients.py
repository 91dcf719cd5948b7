"""Gradients that wait for the next step: the sum of the gradients of all backwards since the last step, row by row.

    backward --> part of each table that the loss uses --.
    backward --> part ...                                --+--> summed by id, in the order of the backwards --> step
    backward --> part ...                                --'

Each table has a stand-in, a parameter whose `.grad` is the table's part: float32 [U, D], a row for each id. This module
knows which ids those are. What torch does to a `.grad` it may do to these: scale, clip, set to None. The parameter
itself holds no memory and no value; the rows are on the shards.

A batch whose bags the shards sum has a gradient for each bag, [B, D], for as long as it is alone in its step. When
another batch is added, both become gradients of rows.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ps.errors import ResourceExhausted
from ps.nn.embedding.autograd import Watch
from ps.nn.embedding.prepared import Forward
from ps.nn.embedding.table_gradients import TableGradients

MAX_BYTES = 1 << 30
"""The default bound on the bytes of gradients that wait: 4 million rows of dim 64."""
LONG_WITHOUT_A_STEP = 100
"""After so many backwards without a step, a warning asks whether `step` was forgotten."""
NOTHING = torch.zeros(0, 1)

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Waiting:
    """What is known of the gradients in one table's stand-in: their rows, and the forwards that they come from."""

    part: TableGradients
    forwards: list[Forward]


class WaitingGradients:
    """The gradients of one collection that wait for its next step. Only the trainer's thread may call it."""

    def __init__(self, dims: Mapping[str, int], anchor: nn.Parameter, max_bytes: int = MAX_BYTES) -> None:
        """dims: floats of a row, by table. anchor: the collection's parameter; while gradients wait it has a `.grad`,
        too."""
        self._anchor = anchor
        self.stand_ins = {name: nn.Parameter(torch.zeros(0, dim)) for name, dim in dims.items()}
        """A parameter for each table, whose `.grad` has the table's gradients that wait."""
        self.backwards = 0
        """How many backwards there were since the last step."""
        self._max_bytes = max_bytes
        self._waiting: dict[str, _Waiting] = {}

    def __bool__(self) -> bool:
        return any(self.stand_ins[name].grad is not None for name in self._waiting)

    @property
    def nbytes(self) -> int:
        """The bytes that the waiting gradients take."""
        return sum(one.grad.nbytes for one in self.stand_ins.values() if one.grad is not None)

    @property
    def told(self) -> str:
        """Returns in words which gradients wait."""
        return f"{self._whose} have not been pushed by a step()"

    def tell_lost(self) -> None:
        """Logs which gradients are lost when the collection is gone, or the program ends."""
        if self.nbytes:
            log.warning("%s: they are lost", self.told)

    def watch(self, forward: Forward) -> dict[str, torch.Tensor]:
        """Returns the rows that a forward has pulled; the gradients that a backward makes of them will wait for a
        step."""

        def add(grads: Sequence[torch.Tensor | None]) -> None:
            self.drop_zeroed()
            given = zip(forward.pulled.rows, grads, strict=True)
            self.add(forward, {name: forward.part(name, grad) for name, grad in given if grad is not None})
            if self._anchor.grad is None:  # now: another forward may add before autograd comes to it
                self._anchor.grad = torch.zeros_like(self._anchor)

        watch: Any = Watch.apply  # torch leaves it untyped
        return dict(zip(forward.pulled.rows, watch(add, self._anchor, *forward.pulled.rows.values()), strict=True))

    def drop_zeroed(self) -> None:
        """Drops the waiting gradients if the gradients of the model's parameters were set to None: the `zero_grad` of a
        model or optimizer reaches the anchor's too."""
        if self and self._anchor.grad is None:
            log.warning(
                "%s, and were dropped by a zero_grad() of the model or of an optimizer: call the collection's step() "
                "before that",
                self.told,
            )
            self.clear()

    def add(self, forward: Forward, parts: Mapping[str, TableGradients]) -> None:
        """Adds the gradients that one backward gave to the tables that the loss uses. Raises ResourceExhausted where
        more than the bound would wait; then nothing of this backward has been added."""
        if self.nbytes > self._max_bytes:
            raise ResourceExhausted(
                f"{self._whose}, {self.nbytes:,} bytes, wait for a step, the limit is "
                f"{self._max_bytes:,}: call the collection's step() after backward, or zero_grad() to drop them"
            )
        self.backwards += 1
        for name, part in parts.items():
            self._add(name, forward, part)
        if self.backwards == LONG_WITHOUT_A_STEP:
            log.warning("%s: has it been forgotten?", self.told)

    def by_rows(self) -> None:
        """Turns gradients of bags into gradients of rows, so that a norm is the one that torch would see."""
        for name, waiting in self._parts().items():
            if waiting.part.bags is not None:
                self._put(name, waiting.part.by_rows(), waiting.forwards)

    def take(self) -> tuple[dict[str, TableGradients], list[Forward]]:
        """Returns all waiting gradients by table, and the forwards that they come from; nothing waits any more."""
        found = self._parts()
        parts = {name: waiting.part for name, waiting in found.items()}
        forwards = list(dict.fromkeys(forward for waiting in found.values() for forward in waiting.forwards))
        for forward in forwards:
            forward.counts_taken()
        self.clear()
        return parts, forwards

    def clear(self) -> None:
        """Drops all waiting gradients."""
        for waiting in self._waiting.values():
            for forward in waiting.forwards:
                forward.counts_dropped()
        self._waiting.clear()
        self.backwards = 0
        for stand_in in self.stand_ins.values():
            stand_in.grad = None

    @property
    def _whose(self) -> str:
        return f"the gradients of {self.backwards} {'backward' if self.backwards == 1 else 'backwards'}"

    def _parts(self) -> dict[str, _Waiting]:
        """Returns the waiting gradients by table, as they are now, without tables whose `.grad` was set to None."""
        found = {}
        for name, waiting in self._waiting.items():
            grads = self.stand_ins[name].grad
            if grads is not None:
                found[name] = _Waiting(replace(waiting.part, grads=grads), waiting.forwards)
        return found

    def _add(self, name: str, forward: Forward, part: TableGradients) -> None:
        grads = self.stand_ins[name].grad
        if grads is None:
            self._put(name, part, [forward])
            return
        waiting = self._waiting[name]
        before, forwards = replace(waiting.part, grads=grads), waiting.forwards
        if before.ids_U is part.ids_U and before.bags is part.bags:
            together = before.and_again(part)
        else:
            together = before.and_those_of(part)
        self._put(name, together, forwards if forward in forwards else [*forwards, forward])

    def _put(self, name: str, part: TableGradients, forwards: list[Forward]) -> None:
        stand_in, grads = self.stand_ins[name], part.grads
        stand_in.grad = None
        stand_in.data = torch.zeros(()).expand(grads.shape)  # torch wants a shape, and this one takes no memory
        stand_in.grad = grads
        self._waiting[name] = _Waiting(replace(part, grads=NOTHING), forwards)
