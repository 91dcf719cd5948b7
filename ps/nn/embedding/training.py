"""The optimizer's side of a collection: from gradients that wait to pushes that are applied."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import nn

from ps.errors import InvalidArgument
from ps.nn.embedding.gradients import WaitingGradients
from ps.nn.embedding.pulling import Puller
from ps.nn.embedding.pushes import Pushes
from ps.nn.embedding.row_optimizer import RowOptimizer, check_no_scaler
from ps.nn.embedding.sending import Sender
from ps.nn.modes import Pace

FORMAT = 2
"""The version of the extra state's format. The first had no `format`, and only what is held back by table."""


class RowTraining(nn.Module):
    """Steps, sends and flushes the gradients of the rows of one collection, `EmbeddingBagCollection`."""

    _pace: Pace
    _puller: Puller
    _pushes: Pushes
    _sender: Sender
    _waiting: WaitingGradients
    _may_be_scaled: bool
    """Whether a GradScaler may be in use for which no step has been checked yet."""

    def send(self) -> None:
        """Begins to push the gradients that wait, and returns: the next step's are pushed after them. An error is
        raised by `step`, or by the next `forward`."""
        self._sender.send(*self._taken())

    def step(self) -> None:
        """Pushes the gradients that wait, waits until they and all pushes sent before are applied, and raises the first
        error. The gradients of a push that failed are dropped, and its error is raised once.

        In a `Synchronous` group every trainer makes every step, also one whose batch had no ids or no gradients.
        Gradients of a scaled loss must come here unscaled: `scaler.step(collection.optimizer)`. Where a GradScaler is
        in use, the first step by any other way than that optimizer raises InvalidArgument.
        """
        self._sender.step(*self._taken())

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients that wait."""
        super().zero_grad(set_to_none)
        self._waiting.clear()

    def row_parameters(self) -> list[nn.Parameter]:
        """Returns a stand-in for each table, whose `.grad`, float32 [U, D], has the gradients that wait, row by row;
        None where there are none. For `torch.nn.utils.clip_grad_norm_([*model.parameters(),
        *collection.row_parameters()], 1.0)` between backward and step; stand-ins hold no rows, so no optimizer can
        train them."""
        self._waiting.drop_zeroed()
        self._waiting.by_rows()
        return list(self._waiting.stand_ins.values())

    @cached_property
    def optimizer(self) -> RowOptimizer:
        """This collection's `step` and `zero_grad` as a torch optimizer, for `scaler.step(collection.optimizer)`."""
        self._may_be_scaled = False
        return RowOptimizer(self, self._waiting.stand_ins.values())

    def flush(self) -> None:
        """Sends the gradients that are held back (`sparsify`), after the pushes on their way; raises the first
        error."""
        self._sender.wait()
        self._pushes.flush()

    def finish(self) -> None:
        """Flushes, and tells the other trainers of the group that this one makes no more steps. Raises InvalidArgument,
        and does nothing, while gradients wait for a step."""
        self.check_none_wait()
        self.flush()
        self._pace.finish()

    def check_none_wait(self) -> None:
        """Raises InvalidArgument while gradients wait for a step: who ends or saves now would lose them."""
        self._waiting.drop_zeroed()
        if self._waiting.nbytes:
            raise InvalidArgument(f"{self._waiting.told}: call step(), or zero_grad() to drop them")

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the gradients that are held back, and what thresholds and masks have learned, for `state_dict`; not
        the gradients that wait for a step. Waits for the pushes on their way."""
        self._sender.wait()
        return {"format": FORMAT, "held": self._pushes.state_dict(), "masks": self._puller.masks()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes up gradients that were held back, for `load_state_dict`. Raises InvalidArgument for a state of other
        tables or of a later version."""
        self._sender.wait()
        if isinstance(state.get("format"), int):
            if state["format"] != FORMAT:
                raise InvalidArgument(f"a collection's state of format {state['format']}: this version reads {FORMAT}")
            self._puller.load_masks(state["masks"])
            state = state["held"]
        self._pushes.load_state_dict(state)

    def _taken(self) -> Any:
        """Returns the gradients that wait, by table, and the forwards that they come from; from now on nothing
        waits."""
        self._waiting.drop_zeroed()
        if self._may_be_scaled and self._waiting:
            check_no_scaler()
            self._may_be_scaled = False
        return self._waiting.take()
