"""Gradients held back, by id: one float32 row [D] for each id of which something is held.

    a row costs   4 * D              its residual
                + 12                 its id and squared norm, by slot
                + 24                 id and slot in the index, where it is emptiest (20 as a rule)

Everything is a batch: no Python object a row. Rows lie in reserved address space and grow without a copy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.errors import ConfigError
from ps.kernels import residuals as kernels
from ps.kernels.index import IdIndex
from ps.kernels.rows import pop_free, push_free
from ps.memory import Memory, ReservedArray

Ids = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]

KEY_BYTES = 36
"""Of a row, beside its floats."""
_FREE = np.float32(-1.0)
NO_ELEMENTS = np.float32(np.inf)
"""The threshold by which no single element is picked."""


class Held(NamedTuple):
    """Gradients by id: ids_R int64 [R], unique, and grads_RD float32 [R, D]."""

    ids_R: Ids
    grads_RD: Rows


class ResidualStore:
    """id -> what is held of its gradient. One thread at a time.

    `max_rows` is not kept here: who inserts rows looks first. So what must not be lost can always be put back.
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
        self._free, self._n_free, self._used = -1, 0, 0  # as in ps.storage.arena: the free slots are a stack in `_ids`

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows held now take, as `max_bytes` counts them."""
        return len(self) * self.row_bytes

    @property
    def committed_bytes(self) -> int:
        """Bytes of memory in use or asked for ahead."""
        return sum(part.committed_bytes for part in (self._index, self._residuals, self._ids, self._norms))

    @property
    def residuals_SD(self) -> Rows:  # noqa: N802  an array, so its name carries its shape
        """What is held, by slot."""
        rows_SD: Rows = self._residuals.array
        return rows_SD

    @property
    def norms_S(self) -> Rows:  # noqa: N802
        """Squared norms of what is held, by slot; below 0 where the slot is free."""
        norms_S: Rows = self._norms.array[: self._used]
        return norms_S

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where nothing is held."""
        slots_N = np.empty(len(ids_N), np.int64)
        self._index.find(ids_N, slots_N)
        return slots_N

    def survey(self, slots_U: Slots, grads_UD: Rows, threshold: np.float32) -> tuple[npt.NDArray[np.int32], Rows]:
        """See `ps.kernels.residuals.survey`: elements picked, and squared norms of what would stay."""
        picked_U, norms_U = np.empty(len(slots_U), np.int32), np.empty(len(slots_U), np.float32)
        kernels.survey(self.residuals_SD, slots_U, grads_UD, threshold, picked_U, norms_U)
        return picked_U, norms_U

    def take_sent(
        self, slots_U: Slots, grads_UD: Rows, threshold: np.float32, whole_U: npt.NDArray[np.bool_], rows_R: Slots
    ) -> Rows:
        """See `ps.kernels.residuals.take_sent`: float32 [R, D]."""
        out_RD = np.empty((len(rows_R), self.dim), np.float32)
        kernels.take_sent(self.residuals_SD, slots_U, grads_UD, threshold, whole_U, rows_R, out_RD)
        return out_RD

    def insert(self, ids_N: Ids) -> Slots:
        """Gives each id, none of which has one, a slot; its residual is whatever was there: `clear` it before `hold`.

        Raises ResourceExhausted when the host's memory is at its end, and then nothing has changed.
        """
        n = len(ids_N)
        reused = min(n, self._n_free)
        used = self._used + n - reused
        for array in (self._residuals, self._ids, self._norms):
            array.ensure(used)
        candidates_N = np.arange(self._used - reused, used)
        free = pop_free(self._ids.array, self._free, candidates_N[:reused])
        slots_N = np.empty(n, np.int64)
        created = self._index.find_or_insert(ids_N, candidates_N, slots_N)
        assert created == n, "insert was given an id twice, or one of which something is held"
        self._free, self._n_free, self._used = free, self._n_free - reused, used
        self._ids.array[slots_N] = ids_N
        self._norms.array[slots_N] = 0
        return slots_N

    def clear(self, slots_N: Slots) -> None:
        """Makes what is held in these slots 0."""
        self._residuals.array[slots_N] = 0

    def hold(self, slots_H: Slots, grads_UD: Rows, threshold: np.float32, rows_H: Slots, norms_H: Rows) -> None:
        """See `ps.kernels.residuals.hold`; norms_H: squared norms of what stays."""
        kernels.hold(self.residuals_SD, slots_H, grads_UD, threshold, rows_H)
        self._norms.array[slots_H] = norms_H

    def release(self, slots_N: Slots) -> None:
        """Forgets what is held in these slots, unique and in use. Their residuals stay readable until a `clear`."""
        ids_N = self._ids.array[slots_N]
        erased_N = np.empty(len(ids_N), np.int64)
        self._n_free += self._index.erase(ids_N, erased_N)
        self._norms.array[slots_N] = _FREE
        self._free = push_free(self._ids.array, self._free, slots_N)

    def take(self, slots_N: Slots) -> Held:
        """Takes these rows out: what was held in them."""
        held = Held(self._ids.array[slots_N], self._residuals.array[slots_N])
        self.release(slots_N)
        return held

    def add(self, held: Held) -> None:
        """Adds gradients to what is held of their ids, unique, whatever the bound. Raises ResourceExhausted when the
        host's memory is at its end, and then nothing has changed."""
        grads_RD = np.ascontiguousarray(held.grads_RD)
        slots_R = self.find(held.ids_R)
        _, norms_R = self.survey(slots_R, grads_RD, NO_ELEMENTS)
        new_R = np.flatnonzero((slots_R < 0) & (norms_R > 0))
        slots_R[new_R] = self.insert(held.ids_R[new_R])
        self.clear(slots_R[new_R])
        self.release(slots_R[(slots_R >= 0) & (norms_R == 0)])
        rows_H = np.flatnonzero(norms_R > 0)
        self.hold(slots_R[rows_H], grads_RD, NO_ELEMENTS, rows_H, norms_R[rows_H])

    def all(self) -> Held:
        """A copy of everything held, ids ascending."""
        slots_N = np.flatnonzero(self.norms_S >= 0)
        slots_N = slots_N[np.argsort(self._ids.array[slots_N])]
        return Held(self._ids.array[slots_N], self._residuals.array[slots_N])

    def take_all(self) -> Held:
        """Takes everything out, ids ascending."""
        held = self.all()
        self.release(self.find(held.ids_R))
        return held

    def close(self) -> None:
        """Gives the memory back; what is held is lost."""
        for part in (self._index, self._residuals, self._ids, self._norms):
            part.close()
