"""Decides which ids of a tensor-train table get a row of their own: the most frequent. At a push it is asked about the
ids without a row.

It decides and counts as admission does for other tables (`ps.policy.admission`): by logged state alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Flags, Ids
from ps.config import TensorTrain
from ps.kept import KeptState, joined, restored
from ps.policy.admission import SketchGate, sketch_bytes
from ps.policy.ranking import Ranking

MIN_CELLS, MAX_CELLS = 1 << 12, 1 << 20
"""The least and the largest number of cells of a sketch; 8 bytes each."""
SLACK = 1.25
"""Rows of their own are folded back until there are so many times `hot_rows`."""
MOST = 1.5
"""At most so many times `hot_rows` ids have rows of their own, with those that wait to be folded."""


def cells_of(cold: TensorTrain) -> int:
    """Returns the number of cells that count the uses of ids without a row."""
    return min(max(cold.rows, MIN_CELLS), MAX_CELLS)


def gate_bytes(cold: TensorTrain) -> int:
    """Returns the bytes of the sketch of uses."""
    return sketch_bytes(cells_of(cold))


class LiftGate:
    """The gate of one tensor-train table. A sketch counts an id's uses until the id is lifted; from then on its row's
    score does."""

    def __init__(self, cold: TensorTrain, ranking: Ranking, score_of_a_use: float) -> None:
        self._after = cold.lift_after
        self._hot_rows = cold.hot_rows
        self._ranking = ranking
        self._score_of_a_use = np.float32(score_of_a_use)
        self._sketch = SketchGate(cold.lift_after, cells_of(cold))
        self._above: int | None = None
        self._total_most = int(MOST * cold.hot_rows)
        self.nbytes = self._sketch.nbytes

    def decide(self, own_rows: int) -> int | None:
        """Decides at a tick which ids get a row until the next tick. own_rows: rows that stay, and rows that wait to be
        folded. Returns the rank at which, and below which, rows are to be folded; None while there is room for all."""
        total = self._ranking.total
        self._above = self._ranking.quantile(self._hot_rows) if total > self._hot_rows else None
        self._total_most = total + max(int(MOST * self._hot_rows) - own_rows, 0)
        keep = int(SLACK * self._hot_rows)
        return self._ranking.quantile(keep) if total > keep else None

    def admits(self, ids_N: Ids, counts_N: Counts, push: int) -> Flags:
        """Returns which ids have been used often enough, and more often than the rows that exist; the most frequent
        ones if there is not room for all. How often an id occurs within one push does not matter."""
        uses_N = self._uses(ids_N) + 1
        chosen_N = np.flatnonzero((uses_N >= self._after) & self._above_others(uses_N))
        room = max(self._total_most - self._ranking.total, 0)
        if len(chosen_N) > room:
            chosen_N = chosen_N[np.argsort(-uses_N[chosen_N].astype(np.int64), kind="stable")[:room]]
        flags_N = np.zeros(len(ids_N), np.bool_)
        flags_N[chosen_N] = True
        return flags_N

    def scores(self, ids_N: Ids) -> npt.NDArray[np.float32]:
        """Returns the scores that rows of these ids begin with, from their uses so far."""
        return (self._uses(ids_N) * self._score_of_a_use).astype(np.float32)

    def refuse(self, ids_N: Ids, counts_N: Counts) -> None:
        """Counts a use of each id."""
        self._sketch.refuse(ids_N, np.ones(len(ids_N), np.uint32))

    def tick(self, now: int) -> None:
        """Lets uses decay as scores do."""
        self._sketch.tick(now)

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {"above": self._above, "total_most": self._total_most, **joined({"sketch": self._sketch})}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self._above, self._total_most = state["above"], state["total_most"]
        restored({"sketch": self._sketch}, state)

    def _uses(self, ids_N: Ids) -> npt.NDArray[np.uint32]:
        return self._sketch.counts(ids_N)

    def _above_others(self, uses_N: npt.NDArray[np.uint32]) -> Flags:
        if self._above is None:
            return np.ones(len(uses_N), np.bool_)
        statistics_N2 = np.empty((len(uses_N), 2), np.uint32)
        statistics_N2[:, 0] = (uses_N * self._score_of_a_use).astype(np.float32).view(np.uint32)
        statistics_N2[:, 1] = self._ranking.now
        above_N: Flags = self._ranking.ranks(statistics_N2) > self._above
        return above_N
