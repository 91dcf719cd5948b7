"""Statistics of rows that may have converged, by id: see `ps.kernels.updates.convergence` for what is kept of each.

A row costs 24 bytes for its record and 24 for id and slot in the index, where it is emptiest (20 as a rule).
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Slots
from ps.errors import ConfigError, ResourceExhausted
from ps.kernels.index.index import IdIndex
from ps.kernels.updates.convergence import STATISTIC
from ps.runtime.memory import Memory, ReservedArray

STATISTIC_BYTES = 48
"""Bytes of a row's statistic, with its part of the index."""
AT_ONCE = 8
"""Where there is no room for a new row, an eighth of the other rows is forgotten at once, so that many steps share the
cost."""

Kept = npt.NDArray[np.void]


class ConvergenceStore:
    """Statistics of rows by id. Threads: one at a time.

    At its bound it forgets the rows that no step has had for the longest, but none of the present step. If those alone
    are too many, the last of the new ones are not taken up.
    """

    def __init__(self, max_bytes: int, memory: Memory | None = None) -> None:
        """Raises ConfigError where not even one row fits in `max_bytes`."""
        self.max_rows = max_bytes // STATISTIC_BYTES
        if self.max_rows < 1:
            raise ConfigError(
                f"max_bytes {max_bytes:,} holds no row's statistics: one takes {STATISTIC_BYTES} bytes; give more"
            )
        self._memory = memory
        self._index = IdIndex(memory=memory)
        self._records = ReservedArray((), STATISTIC, self.max_rows, memory)

    def __len__(self) -> int:
        """Returns of how many rows there are statistics."""
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """The bytes that the statistics take, as `max_bytes` counts them."""
        return len(self) * STATISTIC_BYTES

    @property
    def records_S(self) -> Kept:  # noqa: N802  an array, so its name carries its shape
        """The records of all rows, by slot."""
        records_S: Kept = self._records.array[: len(self)]
        return records_S

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where there are no statistics of it."""
        slots_N = np.empty(len(ids_N), np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def find_or_insert(self, ids_N: Ids, step: int) -> Slots:
        """Returns the slot of each id. An id without statistics gets a record if there is room, as a row seen in no
        step and sent in the last one; otherwise -1. ids_N: unique."""
        slots_N = self.find(ids_N)
        self.records_S["seen_at"][slots_N[slots_N >= 0]] = step
        wanted = int(np.count_nonzero(slots_N < 0))
        if len(self) + wanted > self.max_rows:
            self._let_go(len(self) + wanted - self.max_rows, step)
            slots_N = self.find(ids_N)
        new_N = np.flatnonzero(slots_N < 0)[: self.max_rows - len(self)]
        fresh_N = np.zeros(len(new_N), STATISTIC)
        fresh_N["id"], fresh_N["seen_at"], fresh_N["sent_at"] = ids_N[new_N], step, step - 1
        with suppress(ResourceExhausted):  # the host has no memory for them: as at the bound
            slots_N[new_N] = self._append(fresh_N)
        return slots_N

    def reset(self, ids_N: Ids) -> None:
        """Clears the statistics of these rows, where there are any."""
        slots_N = self.find(ids_N)
        slots_N = slots_N[slots_N >= 0]
        self.records_S["seen"][slots_N] = 0
        self.records_S["mean"][slots_N] = 0

    def all(self) -> Kept:
        """Returns a copy of all records, ids ascending."""
        return self.records_S[np.argsort(self.records_S["id"])]

    def load(self, records_N: Kept) -> None:
        """Replaces all records by these, whose ids are unique. Beyond the bound, those seen last are kept."""
        self._start_again(records_N[np.argsort(-records_N["seen_at"], kind="stable")[: self.max_rows]])

    def close(self) -> None:
        """Gives the memory back."""
        self._index.close()
        self._records.close()

    def _append(self, records_N: Kept) -> Slots:
        end = len(self) + len(records_N)
        self._records.ensure(end)
        slots_N = np.empty(len(records_N), np.int64)
        created = self._index.find_or_insert(np.ascontiguousarray(records_N["id"]), np.arange(len(self), end), slots_N)
        assert created == len(records_N), "an id was given twice"
        self._records.array[slots_N] = records_N
        return slots_N

    def _let_go(self, least: int, step: int) -> None:
        """Forgets `least` rows, or an eighth of all if that is more, but none that was seen in this step."""
        seen_at_S = self.records_S["seen_at"]
        n = min(max(least, len(self) // AT_ONCE), len(self))
        if n:
            last = np.partition(seen_at_S, n - 1)[n - 1]  # ties go together: it is the same whatever order they are in
            self._start_again(self.records_S[(seen_at_S > last) | (seen_at_S == step)])

    def _start_again(self, records_N: Kept) -> None:
        self._index.close()
        self._index = IdIndex(memory=self._memory)
        self._append(records_N)
