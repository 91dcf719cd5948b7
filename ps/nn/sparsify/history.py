"""What is known of a row beside its residual, by its slot in `ps.nn.sparsify.residuals`. It decides whether the row's
gradients may stay held.

    pushed   sum of the squared norms of what was sent of it, as Adagrad's accumulators grow, over the row
    seen     the last step that named it
    since    the step from which on something has been held of it; NEVER: nothing is

A row costs 12 bytes. A row without an entry counts as one of which nothing was ever pushed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ps.arrays import Flags, Slots
from ps.nn.sparsify.thresholds import Hold
from ps.runtime.memory import Memory, ReservedArray

Norms = npt.NDArray[np.float32]
Steps = npt.NDArray[np.int32]

NEVER = np.iinfo(np.int32).max
SWEEPS = 4
"""How often within `Hold.steps` rows that no step names any more are looked for. Each time costs a message."""


class History:
    """What is known of the rows of one table. Threads: one at a time."""

    def __init__(self, max_rows: int, memory: Memory | None = None) -> None:
        self._pushed = ReservedArray((), np.float32, max_rows, memory)
        self._seen = ReservedArray((), np.int32, max_rows, memory)
        self._since = ReservedArray((), np.int32, max_rows, memory)
        self.step = 0
        """The number of the present or last selection, counted from 1."""

    @property
    def pushed_S(self) -> Norms:  # noqa: N802  an array, so its name carries its shape
        """What was pushed of each row, by slot."""
        return self._pushed.array

    @property
    def seen_S(self) -> Steps:  # noqa: N802
        """The last step that named each row, by slot."""
        return self._seen.array

    @property
    def since_S(self) -> Steps:  # noqa: N802
        """The step since which something of each row is held, by slot."""
        return self._since.array

    @property
    def committed_bytes(self) -> int:
        """Bytes of memory in use or reserved ahead."""
        return sum(part.committed_bytes for part in self._parts)

    @property
    def _parts(self) -> tuple[ReservedArray, ...]:
        return self._pushed, self._seen, self._since

    def ensure(self, rows: int) -> None:
        """Makes the slots [0, rows) usable; raises ResourceExhausted."""
        for part in self._parts:
            part.ensure(rows)

    def begin(self, slots_N: Slots) -> None:
        """Resets the rows in these slots: nothing is known of them but that this step names them."""
        self.pushed_S[slots_N], self.seen_S[slots_N], self.since_S[slots_N] = 0, self.step, NEVER

    def late(self, hold: Hold, slots_U: Slots) -> Flags:
        """Returns which of the step's rows must not be held longer, bool [U]: no step has named them for `hold.steps`,
        or something has been held of them for as long, or would be before the next sweep. slots_U: -1 where a row has
        no slot."""
        late_U = np.zeros(len(slots_U), np.bool_)
        known_U = slots_U >= 0
        slots_N = slots_U[known_U]
        late_U[known_U] = self.seen_S[slots_N] < self.step - hold.steps
        late_U[known_U] |= self.since_S[slots_N] < self._limit(hold)
        return late_U

    def heavy(self, hold: Hold, slots_U: Slots, norms_U: Norms) -> Flags:
        """Returns of which rows too much would be held compared with what was pushed of them, bool [U]. norms_U:
        squared norms of what would be held."""
        share = np.float32(hold.share * hold.share)
        pushed_U = np.where(slots_U >= 0, self.pushed_S[np.maximum(slots_U, 0)], np.float32(0))
        heavy_U: Flags = norms_U * (1 - share) > share * pushed_U
        return heavy_U

    def quiet(self, hold: Hold, used: int) -> Slots:
        """Returns those of the first `used` slots for which the next sweep would be too late, once the step's rows are
        settled."""
        if self.step % _period(hold):
            return np.empty(0, np.int64)
        slots_N: Slots = np.flatnonzero(self.since_S[:used] < self._limit(hold))
        return slots_N

    def see(self, slots_N: Slots) -> None:
        """Notes that this step names these rows."""
        self.seen_S[slots_N] = self.step

    def note_held(self, slots_N: Slots) -> None:
        """Notes that something is held of these rows, from now on if nothing was."""
        self.since_S[slots_N] = np.minimum(self.since_S[slots_N], self.step)

    def note_pushed(self, slots_N: Slots, grads_ND: Norms) -> None:
        """Notes how much was sent of these rows. Slots are unique."""
        self.pushed_S[slots_N] += np.einsum("nd,nd->n", grads_ND, grads_ND)

    def note_refused(self, slots_N: Slots, grads_ND: Norms) -> None:
        """Notes that these gradients were not applied after all."""
        self.pushed_S[slots_N] -= np.einsum("nd,nd->n", grads_ND, grads_ND)
        self.pushed_S[slots_N] = np.maximum(self.pushed_S[slots_N], 0)

    def state(self, slots_N: Slots) -> dict[str, Any]:
        """Returns the history of these rows, in their order, as numbers and tensors."""
        columns = {"pushed": self.pushed_S, "seen": self.seen_S, "since": self.since_S}
        return {"step": self.step, **{name: torch.from_numpy(column_S[slots_N]) for name, column_S in columns.items()}}

    def load(self, state: Mapping[str, Any], slots_N: Slots) -> None:
        """Takes up a saved state. slots_N: the slots of the rows in `state`, -1 where there is no place for one."""
        self.step = int(state["step"])
        known_N = slots_N >= 0
        for name, column_S in {"pushed": self.pushed_S, "seen": self.seen_S, "since": self.since_S}.items():
            column_S[slots_N[known_N]] = np.asarray(state[name])[known_N]

    def close(self) -> None:
        """Gives the memory back."""
        for part in self._parts:
            part.close()

    def _limit(self, hold: Hold) -> int:
        period = _period(hold)
        return self.step - hold.steps + (period if self.step % period == 0 else 1)


def _period(hold: Hold) -> int:
    """Returns how many steps there are between two sweeps."""
    return max(1, hold.steps // SWEEPS)
