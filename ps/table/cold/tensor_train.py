"""Hot rows: which rows of a tensor-train table are outside of its cores is decided at ticks, and carried out at pushes,
some at a time.

Up: a push that names an id for the n-th time gives it a row that begins with its value in the cores, if the id is more
frequent than the least of the `hot_rows` most important rows (`ps.policy.lifting`). From then on it is trained as a row
of any table.

Down: a tick of the table's clock lists the rows beyond 1.25 times `hot_rows`, the least important first, and each push
after it folds some of them back (`ps.tensor_train.fold`): those that the cores now have within `fold_tolerance` are
dropped, the others stay exact rows for good, and only these may go to disk.

Folding a row changes the values of others. So it happens only at pushes, in the same way on every shard that has had
the same writes, and does not depend on where rows are. For that, a row that may still be folded never leaves RAM. Used
by the engine thread, as the table is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ps.arrays import Ids, Rows, Slots
from ps.config import TableConfig, TensorTrain
from ps.kept import KeptState, joined, restored
from ps.kernels.ranking import score
from ps.policy import lifting
from ps.policy.lifting import LiftGate
from ps.policy.ranking import Ranking
from ps.storage.ram.arena import Arena
from ps.storage.residence.dropped import Dropped
from ps.table.cold.cold import BytesByTier, Cold
from ps.table.cold.cores import ColdCores
from ps.table.counters import Counters


class TensorTrainCold(Cold):
    """The cores of one table, and its rows outside of them."""

    def __init__(
        self,
        cold: TensorTrain,
        cores: ColdCores,
        gate: LiftGate,
        ram: Arena,
        ranking: Ranking,
        dropped: Dropped,
        counts: Counters,
    ) -> None:
        super().__init__(counts)
        self._cores, self._gate, self._ram, self._ranking, self._dropped = cores, gate, ram, ranking, dropped
        self._tolerance = cold.fold_tolerance
        self.reserved = int(lifting.MOST * cold.hot_rows)
        self._leaving_N: Ids = np.empty(0, np.int64)
        """Slots of rows to be folded, the next one first."""
        self._highest = 0  # rank that they have at most

    def check(self, ids_N: Ids) -> None:
        """Raises InvalidArgument for ids for which the cores have no row."""
        self._cores.check(ids_N)

    def plan_refused(self, ids_N: Ids, gradients: Callable[[], Rows]) -> Callable[[int], int]:
        """Plans to train the cores by the gradients of these ids."""
        if not len(ids_N):
            return lambda step: 0
        grads_ND = gradients()

        def train(step: int) -> int:
            self._counts.rows_in_cores += len(ids_N)
            return self._cores.apply(ids_N, grads_ND, step)

        return train

    def plan_optimizer(self, config: TableConfig) -> Callable[[], None]:
        """Plans to train the cores as this configuration says."""
        return self._cores.plan_optimizer(config)

    def pushed(self, slots_N: Slots) -> None:
        """Folds some of the rows that are leaving."""
        ids_N, self._leaving_N = np.split(self._leaving_N, [self._cores.rows_at_once])
        slots_N = self._dropped.find(ids_N)  # some may be gone, or important again
        here_N = np.flatnonzero(slots_N >= 0)
        ids_N, slots_N = ids_N[here_N], slots_N[here_N]
        folding_N = self._ranking.ranks(self._ram.statistics_S2[slots_N]) <= self._highest
        if folding_N.any():
            self._fold(ids_N[folding_N], slots_N[folding_N])

    def tick(self) -> None:
        """Decides again which rows are to be folded, and which ids may get a row."""
        ram = self._ram
        slots_N = self._dropped.living(np.flatnonzero(ram.marks_S[: ram.slots_end] & np.uint16(score.STAYS)))
        highest = self._gate.decide(len(slots_N))
        if highest is None:
            self._leaving_N = np.empty(0, np.int64)
            return
        ranks_N = self._ranking.ranks(ram.statistics_S2[slots_N])
        leaving_N = np.flatnonzero(ranks_N <= highest)
        ids_N = ram.ids_S[slots_N[leaving_N]]
        self._leaving_N = ids_N[np.lexsort((ids_N, ranks_N[leaving_N]))]  # by id: slots depend on more than the log
        self._highest = highest

    def created(self, ids_N: Ids, slots_N: Slots) -> None:
        """Gives new rows the score of their uses so far; they stay in RAM until they are folded, or kept."""
        score.begin(self._ram.statistics_S2, slots_N, self._gate.scores(ids_N))
        score.mark(self._ram.marks_S, slots_N, score.STAYS, 0)

    def state(self) -> KeptState:
        """See `ps.kept`."""
        return {"leaving_N": self._leaving_N, "highest": self._highest, **joined({"cores": self._cores})}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self._leaving_N, self._highest = state["leaving_N"].copy(), state["highest"]
        restored({"cores": self._cores}, state)

    def wanted_rows(self, total: int, usual: int) -> int:
        """Returns how many of `total` rows belong in RAM: all that may still be folded."""
        return min(total, self.reserved)

    def heap_bytes(self) -> int:
        """Returns the bytes of cores, state and buffers."""
        return self._cores.nbytes

    def memory_usage(self) -> BytesByTier:
        """Returns the bytes of the cores."""
        return {"tensor_train": {"cores": self._cores.nbytes}}

    def stats(self) -> dict[str, object]:
        """Returns how many rows the cores have, and how they are factored."""
        return self._cores.stats()

    def _fold(self, ids_N: Ids, slots_N: Slots) -> None:
        ram, counts = self._ram, self._counts
        row_ND = np.empty((len(slots_N), self._cores.shape.dim), np.float32)
        ram.rows.gather(slots_N, ids_N, row_ND)
        errors_N = self._cores.fold(ids_N, row_ND)
        folded_N = errors_N <= self._tolerance
        score.mark(ram.marks_S, slots_N[~folded_N], 0, score.STAYS)
        counts.rows_kept += int((~folded_N).sum())
        if folded_N.any():
            self._ranking.count(ram.statistics_S2[slots_N[folded_N]], -1)
            ram.discard(ids_N[folded_N])  # they have no copy on disk, and never had one
            counts.rows_folded += int(folded_N.sum())
            counts.fold_error += float(errors_N[folded_N].sum())
            counts.largest_fold_error = max(counts.largest_fold_error, float(errors_N[folded_N].max()))
