"""How a collection's gradients leave: one push a step, in the background, in the order and the rounds of its mode."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import reduce

import numpy as np
import torch

from ps import Client, Step, Versions
from ps.errors import PsError
from ps.nn.embedding.prepared import Forward
from ps.nn.embedding.pushes import Pushes
from ps.nn.embedding.table_gradients import TableGradients
from ps.nn.modes import Pace


class Sender:
    """Sends the pushes of one collection. Only the trainer's thread may call it."""

    def __init__(self, client: Client, dims: Mapping[str, int], pushes: Pushes, pace: Pace) -> None:
        """dims: floats of a row by table, in the order in which steps name the tables."""
        self._client = client
        self._nothing = {name: _nothing(dim) for name, dim in dims.items()}
        self._pushes = pushes
        self._pace = pace
        self._in_flight: deque[Future[None]] = deque()
        self._step_is_sent = False
        self.sent = 0
        """How many pushes were sent so far."""

    @property
    def on_their_way(self) -> list[Future[None]]:
        """How many pushes have not been waited for."""
        return list(self._in_flight)

    def begin_step(self) -> None:
        """Waits for this trainer's turn where trainers go in turn; call it before the rows of a batch are pulled."""
        if self._pace.in_turn:
            self.wait()
        self._pace.begin(self.sent)
        self._step_is_sent = False

    def send(self, parts: Mapping[str, TableGradients], forwards: Sequence[Forward]) -> None:
        """Begins the push of a step. In a group that trains in rounds every rank has a part in each round, and of each
        table, also without ids. If gradients cannot be sent, the error is raised here or by `wait`, and they are
        dropped. The rank still sends its part of the round, without gradients, so that its next step meets the others'
        next."""
        in_rounds, refused = self._pace.in_rounds, None
        if in_rounds:
            parts = {name: parts.get(name) or part for name, part in self._nothing.items()}
        if not parts:
            return
        try:
            push = self._pushes.begin(self._step(parts, forwards), parts, in_rounds)
        except PsError as error:
            if not in_rounds:
                raise
            refused, parts = error, self._nothing
            push = self._pushes.begin(self._step(parts, ()), parts, in_rounds)
        in_round, timeout_s = self._pace.round(), self._pace.patience_s
        before = self._in_flight[-1] if self._pace.in_turn and self._in_flight else None

        def send() -> None:
            if before is not None:
                before.result()  # a round that is not complete is followed by none
            try:
                push(in_round, timeout_s)
            finally:
                for forward in forwards:
                    forward.prepared.step.forget()  # what was pushed otherwise than by its handle, or not at all

        self.sent += 1
        self._step_is_sent = True
        self._in_flight.append(self._client.background(send))
        if refused is not None:
            raise refused

    def step(self, parts: Mapping[str, TableGradients], forwards: Sequence[Forward]) -> None:
        """Sends what `send` has not, and waits until all is applied; raises the first error. In a group that trains in
        rounds each step is a round, also a step without gradients."""
        try:
            if parts or not self._step_is_sent:
                self.send(parts, forwards)
        finally:
            self._step_is_sent = False  # after an error too: the next step is another
        self.wait()

    def wait(self) -> None:
        """Waits until all pushes sent are applied; raises the first error of a push."""
        while self._in_flight:
            self._in_flight[0].exception()  # waits: a signal that breaks that off leaves the push to the next wait
            self._in_flight.popleft().result()

    def raise_failed(self) -> None:
        """Raises the first error of the pushes that have ended."""
        while self._in_flight and self._in_flight[0].done():
            self._in_flight.popleft().result()

    def _step(self, parts: Mapping[str, TableGradients], forwards: Sequence[Forward]) -> Step:
        """Returns the step to push: the prepared step of a batch that is alone, otherwise one that sends its ids
        along."""
        if len(forwards) == 1:
            prepared = forwards[0].prepared
            whole = parts.keys() == prepared.ids.keys() and all(prepared.is_all_of(*part) for part in parts.items())
            if whole and not prepared.sent:
                prepared.sent = True
                return prepared.step
        parts = {name: parts[name] for name in self._nothing if name in parts}
        return self._client.step(
            {name: part.ids_U for name, part in parts.items()},
            counts={name: part.counts_U for name, part in parts.items()},
            bags={name: part.bags for name, part in parts.items() if part.bags is not None},
            versions=reduce(Versions.oldest, (forward.versions for forward in forwards)) if forwards else Versions(),
        )


def _nothing(dim: int) -> TableGradients:
    return TableGradients(np.empty(0, np.int64), np.empty(0, np.uint32), torch.empty(0, dim))
