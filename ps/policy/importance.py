"""What a push adds to the scores of its rows: a weighted sum of signals. `ps.kernels.ranking.score` lets it decay.

Pure, in float32 and in a fixed order: the same push adds the same bits on every shard.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Counts, Scores
from ps.config import Importance

MOST = np.float32(2.0**60)
"""The most that is added to a score at once. A score that is infinite or NaN would have no rank, and would never
decay."""


class Signals:
    """The weights of one table's signals."""

    def __init__(self, weights: Importance) -> None:
        self._weights = weights
        self.floor = min(np.float32(weights.recency), MOST)
        """The least score of a row that has just been pushed."""

    @property
    def wants_attribution(self) -> bool:
        """Whether |gradient x value| must be computed."""
        return self._weights.attribution > 0

    @property
    def of_a_use(self) -> float:
        """What a push adds to the score of a row, as far as that is known before the push."""
        added = float(self.added(1, None, None, None)[0])
        return added or float(self.floor) or 1.0

    def added(
        self, n: int, counts_N: Counts | None, positives_N: Counts | None, attribution_N: Scores | None
    ) -> Scores:
        """Returns what a push adds to the scores of its n rows. Without counts each id occurs once; other signals that
        are not given are 0."""
        weights = self._weights
        added_N = np.full(n, weights.frequency, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if weights.occurrences:
                added_N += np.float32(weights.occurrences) * (1 if counts_N is None else counts_N.astype(np.float32))
            if weights.positives and positives_N is not None:
                added_N += np.float32(weights.positives) * positives_N.astype(np.float32)
            if weights.attribution and attribution_N is not None:
                added_N += np.float32(weights.attribution) * attribution_N
        return _bounded(added_N)

    def reported(self, scores_N: Scores) -> Scores:
        """Returns what reported scores add to the scores of rows."""
        with np.errstate(over="ignore"):
            return _bounded(np.float32(self._weights.external) * scores_N)


def _bounded(added_N: Scores) -> Scores:
    return np.fmin(added_N, MOST, out=added_N)  # of a number and NaN, fmin takes the number
