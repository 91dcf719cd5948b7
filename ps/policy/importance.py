"""What a push adds to the scores of its rows: a weighted sum of signals. `ps.kernels.score` lets it decay.

Pure, in float32 and in a fixed order: the same push adds the same bits on every shard.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.config import Importance

Scores = npt.NDArray[np.float32]
Counts = npt.NDArray[np.uint32]

MOST_ADDED = np.float32(2.0**60)
"""At once. A score that is infinite or NaN would have no rank, and never decay."""


class Signals:
    """One table's weights."""

    def __init__(self, weights: Importance) -> None:
        self._weights = weights
        self._counts_only = weights == Importance()

    @property
    def wants_attribution(self) -> bool:
        """Whether |gradient x value| is worth computing."""
        return self._weights.attribution > 0

    def added(self, counts_N: Counts, positives_N: Counts | None, attribution_N: Scores | None) -> Scores:
        """Of rows that are pushed; signals that are not given are 0."""
        if self._counts_only:
            return counts_N.astype(np.float32)
        weights = self._weights
        with np.errstate(over="ignore", invalid="ignore"):
            added_N = counts_N.astype(np.float32) * np.float32(weights.frequency)
            if weights.positives and positives_N is not None:
                added_N += positives_N.astype(np.float32) * np.float32(weights.positives)
            if weights.attribution and attribution_N is not None:
                added_N += attribution_N * np.float32(weights.attribution)
            added_N += np.float32(weights.recency)
        return _bounded(added_N)

    def reported(self, scores_N: Scores) -> Scores:
        """Of rows whose scores come from outside."""
        with np.errstate(over="ignore"):
            return _bounded(scores_N * np.float32(self._weights.external))


def _bounded(added_N: Scores) -> Scores:
    return np.fmin(added_N, MOST_ADDED)  # of a number and NaN, fmin takes the number
