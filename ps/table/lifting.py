"""Which rows of a tensor-train table are outside of its cores: decided at ticks, carried out at pushes, some at a time.

Up: a push that names an id for the n-th time gives it a row that begins with its value in the cores, if the id is more
frequent than the least of the `hot_rows` most important rows (`ps.policy.lifting`). From then on it is trained as a row
of any table.

Down: a tick of the table's clock lists the rows beyond 1.25 times `hot_rows`, the least important first, and each push
after it folds some of them back (`ps.tensor_train.fold`): those that the cores now have within `fold_tolerance` are
dropped, the others stay exact rows for good, and only these may go to disk.

What is folded when changes the values of others. So it happens at pushes alone, the same for every shard that has had
the same writes: nothing of it depends on where rows are. For that, a row that may still be folded never leaves RAM.
Owned by the engine thread, as the table is.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ps.arrays import Ids, Slots
from ps.kernels.ranking import score
from ps.policy.lifting import LiftGate
from ps.policy.ranking import Ranking
from ps.storage.ram.rows import ArenaRows
from ps.storage.ram.tensor_train import ColdCores
from ps.storage.residence.store import Store


class Lifting:
    """Of one table."""

    NOTHING: ClassVar = {"rows_folded": 0, "rows_kept": 0, "fold_error": 0.0, "largest_fold_error": 0.0}
    """The stats of a table without it."""

    def __init__(
        self, cores: ColdCores, gate: LiftGate, store: Store, rows: ArenaRows, ranking: Ranking, tolerance: float
    ) -> None:
        self._cores, self._gate, self._store, self._rows, self._ranking = cores, gate, store, rows, ranking
        self._tolerance = tolerance
        self._leaving_N: Ids = np.empty(0, np.int64)
        """To be folded, the next one first."""
        self._highest = 0  # rank that they have at most
        self.rows_folded = 0
        self.rows_kept = 0
        """That could not be folded within the tolerance: they stay exact."""
        self.fold_error = 0.0
        """Relative errors of the rows folded, added up."""
        self.largest_fold_error = 0.0

    def pushed(self) -> None:
        """At the end of a push: folds some of those that are leaving."""
        ids_N, self._leaving_N = np.split(self._leaving_N, [self._cores.rows_at_once])
        slots_N = self._store.find(ids_N)  # some may be gone, or important again
        ram = self._store.ram
        ranks_N = np.full(len(slots_N), self._highest + 1, np.int64)
        here_N = np.flatnonzero(slots_N >= 0)
        here_ranks_N = np.empty(len(here_N), np.int64)
        score.ranks(ram.statistics_S2[slots_N[here_N]], self._ranking.per_tick, here_ranks_N)
        ranks_N[here_N] = here_ranks_N
        folding_N = ranks_N <= self._highest
        if folding_N.any():
            self._fold(ids_N[folding_N], slots_N[folding_N])

    def tick(self) -> None:
        """Decides anew who is leaving, and who may come."""
        ram = self._store.ram
        slots_N = self._store.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.STAYS)))
        highest = self._gate.decide(len(slots_N))
        if highest is None:
            self._leaving_N = np.empty(0, np.int64)
            return
        ranks_N = np.empty(len(slots_N), np.int64)
        score.ranks(ram.statistics_S2[slots_N], self._ranking.per_tick, ranks_N)
        leaving_N = np.flatnonzero(ranks_N <= highest)
        ids_N = ram.ids_S[slots_N[leaving_N]]
        self._leaving_N = ids_N[np.lexsort((ids_N, ranks_N[leaving_N]))]  # slots are nobody's business
        self._highest = highest

    def lifted(self, ids_N: Ids, slots_N: Slots) -> None:
        """Rows of these ids have just been given slots."""
        score.begin(self._store.ram.statistics_S2, slots_N, self._gate.scores(ids_N))
        score.mark(self._store.ram.marks_S, slots_N, score.STAYS, 0)

    def stats(self) -> dict[str, object]:
        """Counters, and the errors of folding."""
        return {
            "rows_folded": self.rows_folded,
            "rows_kept": self.rows_kept,
            "fold_error": self.fold_error,
            "largest_fold_error": self.largest_fold_error,
        }

    def _fold(self, ids_N: Ids, slots_N: Slots) -> None:
        ram = self._store.ram
        row_ND = np.empty((len(slots_N), self._cores.shape.dim), np.float32)
        self._rows.gather(slots_N, ids_N, row_ND)
        errors_N = self._cores.fold(ids_N, row_ND)
        folded_N = errors_N <= self._tolerance
        score.mark(ram.marks_S, slots_N[~folded_N], 0, score.STAYS)
        self.rows_kept += int((~folded_N).sum())
        if folded_N.any():
            self._ranking.count(ram.statistics_S2[slots_N[folded_N]], -1)
            self._store.fold(ids_N[folded_N])
            self.rows_folded += int(folded_N.sum())
            self.fold_error += float(errors_N[folded_N].sum())
            self.largest_fold_error = max(self.largest_fold_error, float(errors_N[folded_N].max()))
