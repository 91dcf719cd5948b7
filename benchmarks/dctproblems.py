"""What `dctquality` trains on: a year of flights, and planted clicks in one table, about as many."""

from __future__ import annotations

from typing import Protocol

from benchmarks.measure import Sizes
from benchmarks.ttproblems import Year
from worker.data.source import Source


class Problem(Protocol):
    """A stream of clicks."""

    name: str
    batch: int
    row_lr: float
    """Of rows, Adagrad's: where everything is pushed, on a seed that no figure is from, the best of 0.03, 0.05 and 0.08
    (flights), and within 0.0003 AUC of the best of 0.005, 0.01, 0.02, 0.03 and 0.05 (planted)."""

    def source(self, seed: int) -> Source:
        """The stream; where the data is real, the same for every seed."""
        ...

    def window(self) -> slice:
        """The rows that are judged: predictions before training, after the model has seen something."""
        ...


class Planted:
    """Synthetic clicks in the shape of Criteo's, of which the best possible AUC is known."""

    name = "synthetic"
    batch = 512
    row_lr = 0.01

    def __init__(self, samples: int, total_ids: int) -> None:
        self._samples, self._total_ids = samples, total_ids

    def source(self, seed: int) -> Source:
        """Another teacher, other clicks and other popular ids for each seed."""
        from worker.data.synthetic import Synthetic

        return Synthetic(rows=self._samples, seed=seed, total_ids=self._total_ids, table="ids")

    def window(self) -> slice:
        """The second half."""
        return slice(self._samples // 2, None)


class Flights(Year):
    """About 100,000 ids in two tables."""

    batch = 512


def problems(sizes: Sizes) -> list[Problem]:
    """Both."""
    return [Planted(sizes.dctquality_samples, sizes.dctquality_ids), Flights(sizes.dctquality_flights)]
