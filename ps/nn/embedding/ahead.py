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

from ps.client.connection.connection import Connection

TURN_S = 0.5
"""Of a wait in the main thread, where a Ctrl-C that comes just as one begins is not seen until it ends."""


@dataclass(frozen=True)
class PulledRows:
    """By table, of its unique ids."""

    rows: dict[str, torch.Tensor]
    exists: dict[str, npt.NDArray[np.bool_]]
    """Which of them have a row; where that was asked."""
    important: dict[str, npt.NDArray[np.bool_]]
    """Which of them are among the most important rows; where that was asked."""


@dataclass(frozen=True)
class Ahead:
    """A pull on its way."""

    pulled: Future[PulledRows]
    sent: int
    """Pushes sent when it began, all of which its rows have."""
    bound: int
    """The most of them that may be sent until it is used."""


@dataclass
class PullStaleness:
    """Of the batches trained on: how many of this trainer's pushes their rows lack."""

    by_pushes: Counter[int]
    """Batches by staleness."""
    renewed: int = 0
    """Pulled again: they would have been staler than allowed."""


class Pulls:
    """Those of one collection. Threads: the trainer's; `pull` is called on any."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.staleness = PullStaleness(Counter())

    def start(self, pull: Callable[[], PulledRows], bound: int, sent: int, in_flight: Sequence[Future[None]]) -> Ahead:
        """Begins a pull in the background, when those pushes have ended. Its error is raised at the use."""

        def run() -> PulledRows:
            wait(in_flight)  # what went wrong with them the trainer hears from `step`
            return pull()

        return Ahead(self._connection.submit(run, hint=True), sent, bound)

    def take(
        self, ahead: Ahead | None, pull: Callable[[], PulledRows], sent: int, in_flight: Sequence[Future[None]]
    ) -> PulledRows:
        """The rows for a batch that is trained on now, `sent` pushes having been sent."""
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
