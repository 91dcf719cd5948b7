"""Memory of the gradients held back: one float32 row [D] for each id of which something is held, and the kernels on it.

    a row costs   4 * D              its residual
                + 12                 its id and squared norm, by slot
                + 12                 its history, by slot (`ps.nn.sparsify.history`)
                + 24                 id and slot in the index, where it is emptiest (20 as a rule)

Every call is for a batch of rows: there is no Python object for a row. Rows lie in reserved address space and grow
without a copy.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Rows, Slots
from ps.errors import ConfigError
from ps.kernels.index.index import IdIndex
from ps.kernels.rows.rows import pop_free, push_free
from ps.kernels.updates import residuals as kernels
from ps.nn.sparsify.history import NEVER, History
from ps.runtime.memory import Memory, ReservedArray

KEY_BYTES = 48
"""Bytes of a row beside its floats."""
_FREE = np.float32(-1.0)


class ResidualArrays:
    """Finds the slot of an id, and has by slot the residual, its norm and its history. Threads: one at a time.

    `max_rows` is not enforced here but by the callers that insert, so that gradients which must not be lost can always
    be put back.
    """

    def __init__(self, dim: int, max_bytes: int, memory: Memory | None = None) -> None:
        """Raises ConfigError where not even one row fits in `max_bytes`."""
        self.dim = dim
        self.row_bytes = 4 * dim + KEY_BYTES
        self.max_rows = max_bytes // self.row_bytes
        if self.max_rows < 1:
            raise ConfigError(
                f"max_bytes {max_bytes:,} holds no residual of dim {dim}: one takes {self.row_bytes} bytes; give as "
                f"many rows as a step names, or more"
            )
        self._index = IdIndex(memory=memory)
        self._residuals = ReservedArray((dim,), np.float32, memory=memory)
        most = self._residuals.max_rows
        self._ids = ReservedArray((), np.int64, most, memory)
        self._norms = ReservedArray((), np.float32, most, memory)
        self.history = History(most, memory)
        # As in ps.storage.ram.arena, the free slots are a stack in `_ids`.
        self._free, self._n_free, self._used = -1, 0, 0

    def __len__(self) -> int:
        """Returns how many slots are in use."""
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """The bytes that the slots in use take, as `max_bytes` counts them."""
        return len(self) * self.row_bytes

    @property
    def committed_bytes(self) -> int:
        """Bytes of memory in use or reserved ahead."""
        parts = (self._index, self._residuals, self._ids, self._norms, self.history)
        return sum(part.committed_bytes for part in parts)

    @property
    def residuals_SD(self) -> Rows:  # noqa: N802  an array, so its name carries its shape
        """The residuals, float32 [S, D], by slot."""
        rows_SD: Rows = self._residuals.array
        return rows_SD

    @property
    def norms_S(self) -> Rows:  # noqa: N802
        """The squared norms of the residuals, by slot: 0 where nothing is held, below 0 where the slot is free."""
        norms_S: Rows = self._norms.array[: self._used]
        return norms_S

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where an id has none."""
        slots_N = np.empty(len(ids_N), np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def total_sizes(self, slots_U: Slots, grads_UD: Rows, places_N: npt.NDArray[np.int64]) -> Rows:
        """Returns absolute values of some elements of the totals, before `accumulate`: element j of row i is at place i
        * D + j."""
        rows_N, columns_N = places_N // self.dim, places_N % self.dim
        total_N: Rows = grads_UD[rows_N, columns_N]
        held_N = slots_U[rows_N] >= 0
        total_N[held_N] += self.residuals_SD[slots_U[rows_N[held_N]], columns_N[held_N]]
        return np.abs(total_N)

    def accumulate(
        self, slots_U: Slots, grads_UD: Rows, threshold: np.float32, waits_U: Flags
    ) -> tuple[npt.NDArray[np.int32], Rows]:
        """Adds gradients to residuals and returns how many elements were picked, and the squared norms of what stays,
        as `ps.kernels.updates.residuals.accumulate` says."""
        out = np.empty(len(slots_U), np.int32), np.empty(len(slots_U), np.float32)
        kernels.accumulate(self.residuals_SD, self._norms.array, slots_U, grads_UD, threshold, waits_U, *out)
        return out

    def send(self, slots_R: Slots, grads_UD: Rows, rows_R: Slots, whole_R: Flags, threshold: np.float32) -> Rows:
        """Returns what is sent, float32 [R, D], as `ps.kernels.updates.residuals.send` says."""
        out_RD = np.empty((len(rows_R), self.dim), np.float32)
        kernels.send(self.residuals_SD, slots_R, grads_UD, rows_R, whole_R, threshold, out_RD)
        return out_RD

    def hold(
        self, slots_H: Slots, grads_UD: Rows, rows_H: Slots, threshold: np.float32, waits_H: Flags, norms_H: Rows
    ) -> None:
        """Holds what stays, as `ps.kernels.updates.residuals.hold` says. norms_H: squared norms of what stays."""
        kernels.hold(self.residuals_SD, slots_H, grads_UD, rows_H, threshold, waits_H)
        self._norms.array[slots_H] = norms_H

    def insert(self, ids_N: Ids) -> Slots:
        """Gives each id, none of which has one, a slot; its residual is undefined until `hold`.

        Raises ResourceExhausted when the host has no memory left, and then nothing has changed.
        """
        n = len(ids_N)
        reused = min(n, self._n_free)
        used = self._used + n - reused
        for array in (self._residuals, self._ids, self._norms, self.history):
            array.ensure(used)
        candidates_N = np.arange(self._used - reused, used)
        free = pop_free(self._ids.array, self._free, candidates_N[:reused])
        slots_N = np.empty(n, np.int64)
        created = self._index.find_or_insert(ids_N, candidates_N, slots_N)
        assert created == n, "insert was given an id twice, or one of which something is held"
        self._free, self._n_free, self._used = free, self._n_free - reused, used
        self._ids.array[slots_N] = ids_N
        self._norms.array[slots_N] = 0
        self.history.begin(slots_N)
        return slots_N

    def note_sent(self, slots_N: Slots) -> None:
        """Notes that nothing is held in these slots, freed or not, after the next `send`."""
        self._norms.array[slots_N] = np.minimum(self._norms.array[slots_N], 0)
        self.history.since_S[slots_N] = NEVER

    def release(self, slots_N: Slots) -> None:
        """Frees these slots, unique and in use. Their contents can be read until the next `hold`."""
        ids_N = self._ids.array[slots_N]
        erased_N = np.empty(len(ids_N), np.int64)
        self._n_free += self._index.erase(ids_N, erased_N)
        self._norms.array[slots_N] = _FREE
        self.history.since_S[slots_N] = NEVER
        self._free = push_free(self._ids.array, self._free, slots_N)

    def close(self) -> None:
        """Gives the memory back; what is held is lost."""
        for part in (self._index, self._residuals, self._ids, self._norms, self.history):
            part.close()
