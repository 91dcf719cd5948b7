"""Pipelined pulls: the rows of the next batches come in while this one trains, and so without its gradients.

    batch k      train                  push
    batch k+1    pull ...                     train     push       its rows lack the push of k: staleness 1
    batch k+2                                 pull ...       train

A pull ahead waits for the pushes sent before it, in the background. So what its rows lack of this trainer's own pushes
is what is sent between the pull and the use: that is their staleness. It is counted, and bounded: rows that would be
staler than asked for are pulled again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ps import Client

TURN_S = 0.5
"""How long the main thread waits at a time: a Ctrl-C that comes just as a wait begins is not seen until it ends."""


@dataclass(frozen=True)
class PulledRows:
    """What was pulled of the unique ids of each table."""

    rows: dict[str, torch.Tensor]
    exists: dict[str, npt.NDArray[np.bool_]]
    """Which of the ids have a row; of the tables for which that was asked."""
    important: dict[str, npt.NDArray[np.bool_]]
    """Which of the ids are among the most important rows; of the tables for which that was asked."""


@dataclass(frozen=True)
class Ahead:
    """A pull on its way."""

    pulled: Future[PulledRows]
    sent: int
    """How many pushes had been sent when it began; its rows have all of them."""
    bound: int
    """How many more pushes may be sent until it is used."""


@dataclass
class PullStaleness:
    """How many of this trainer's own pushes the rows lacked that were trained on."""

    by_pushes: Counter[int]
    """How many batches there were, by staleness."""
    renewed: int = 0
    """How many batches were pulled again, because they would have been staler than allowed."""


class Pulls:
    """The pulls of one collection. Threads: the trainer's; `pull` is called on any."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.staleness = PullStaleness(Counter())

    def start(self, pull: Callable[[], PulledRows], bound: int, sent: int, in_flight: Sequence[Future[None]]) -> Ahead:
        """Begins a pull in the background, when those pushes have ended. Its error is raised at the use."""

        def run() -> PulledRows:
            wait(in_flight)  # what went wrong with them the trainer hears from `step`
            return pull()

        return Ahead(self._client.background(run, hint=True), sent, bound)

    def take(
        self, ahead: Ahead | None, pull: Callable[[], PulledRows], sent: int, in_flight: Sequence[Future[None]]
    ) -> PulledRows:
        """Returns the rows for a batch that is trained on now, after `sent` pushes."""
        if ahead is not None:
            if sent - ahead.sent <= ahead.bound:
                rows = ahead.pulled.result()
                self.staleness.by_pushes[sent - ahead.sent] += 1
                return rows
            self.staleness.renewed += 1
            while wait(in_flight, TURN_S).not_done:
                pass
        self.staleness.by_pushes[sum(not push.done() for push in in_flight)] += 1
        return pull()
