"""Planted clicks in the shape of Criteo's, in one table: ids come at random, as often as they are popular."""

from __future__ import annotations

from worker.data.source import Source
from worker.data.synthetic import Synthetic


class Planted:
    """Of these clicks the best possible AUC is known."""

    name = "synthetic"
    batch = 512
    row_lr = 0.01
    """Within 0.0003 AUC of the best of 0.005, 0.01, 0.02, 0.03 and 0.05."""

    def __init__(self, samples: int, total_ids: int) -> None:
        self._samples, self._total_ids = samples, total_ids

    def source(self, seed: int) -> Source:
        """Another teacher, other clicks and other popular ids for each seed."""
        return Synthetic(rows=self._samples, seed=seed, total_ids=self._total_ids, table="ids")

    def window(self) -> slice:
        """The second half."""
        return slice(self._samples // 2, None)
