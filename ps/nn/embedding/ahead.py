"""Pipelined pulls: the rows of the next batches arrive while this batch trains, and so without its gradients.

    batch k      train                  push
    batch k+1    pull ...                     train     push       its rows lack the push of k: staleness 1
    batch k+2                                 pull ...       train

A pull ahead waits for the pushes sent before it, in the background. The *staleness* of its rows is the number of this
trainer's own pushes that are sent between the pull and the use, which the rows lack. Staleness is counted and bounded:
rows that would be staler than asked for are pulled again.
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
"""Seconds that the main thread waits at a time. A Ctrl-C that comes just as a wait begins is not seen until that wait
ends."""


@dataclass(frozen=True)
class PulledRows:
    """What was pulled for the unique ids of each table."""

    rows: dict[str, torch.Tensor]
    exists: dict[str, npt.NDArray[np.bool_]]
    """Which of the ids have a row, for the tables for which that was asked."""
    important: dict[str, npt.NDArray[np.bool_]]
    """Which of the ids are among the most important rows, for the tables for which that was asked."""


@dataclass(frozen=True)
class Ahead:
    """A pull on its way, begun before its batch is used."""

    pulled: Future[PulledRows]
    sent: int
    """How many pushes had been sent when the pull began; its rows have all of them."""
    bound: int
    """How many more pushes may be sent until the rows are used."""


@dataclass
class PullStaleness:
    """How many of this trainer's own pushes were missing in the rows that batches were trained on."""

    by_pushes: Counter[int]
    """How many batches there were, by the staleness of their rows."""
    renewed: int = 0
    """How many batches were pulled again, because their rows would have been staler than allowed."""


class Pulls:
    """Starts and hands out the pulls of one collection. Threads: the trainer's; `pull` is called on any."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.staleness = PullStaleness(Counter())

    def start(self, pull: Callable[[], PulledRows], bound: int, sent: int, in_flight: Sequence[Future[None]]) -> Ahead:
        """Begins a pull in the background, after the pushes sent before it have ended. Its error is raised when the
        rows are taken."""

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
