"""Planted clicks in the shape of Criteo's, in one table: ids come at random, as often as they are popular."""

from __future__ import annotations

from worker.data.source import Source
from worker.data.synthetic import Synthetic


class Planted:
    """Planted clicks, for which the best possible AUC is known."""

    name = "synthetic"
    batch = 512
    row_lr = 0.01
    """The best of 0.005, 0.01, 0.02, 0.03 and 0.05, to within 0.0003 AUC."""

    def __init__(self, samples: int, total_ids: int) -> None:
        self._samples, self._total_ids = samples, total_ids

    def source(self, seed: int) -> Source:
        """Returns a stream with another teacher, other clicks and other popular ids for each seed."""
        return Synthetic(rows=self._samples, seed=seed, total_ids=self._total_ids, table="ids")

    def window(self) -> slice:
        """Judges the second half."""
        return slice(self._samples // 2, None)
