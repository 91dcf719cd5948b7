"""Gradients that are held back, by id: how they are taken out, added, sent and remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from ps.arrays import Ids, Rows, Slots
from ps.nn.sparsify.history import NEVER
from ps.nn.sparsify.residual_arrays import ResidualArrays
from ps.nn.sparsify.thresholds import Hold

NO_ELEMENTS = np.float32(np.inf)
"""The threshold by which no single element is selected."""


class Held(NamedTuple):
    """Gradients by id: ids_R int64 [R], unique, and grads_RD float32 [R, D]."""

    ids_R: Ids
    grads_RD: Rows


class ResidualStore(ResidualArrays):
    """The gradients held back, by id. Threads: one at a time.

    An id keeps its slot, and with it its history, when all of its residual has been sent, for it is likely to come
    again; such slots are the first to be freed.
    """

    def take(self, slots_N: Slots) -> Held:
        """Removes these rows and returns the gradients held of them, where there are any."""
        held_N = slots_N[self._norms.array[slots_N] > 0]
        held = Held(self._ids.array[held_N], self._residuals.array[held_N])
        self.release(slots_N)
        return held

    def add(self, held: Held) -> None:
        """Adds gradients to those held of their ids, unique, whatever the bound. Raises ResourceExhausted when the host
        has no memory left, and then nothing has changed."""
        grads_RD = np.ascontiguousarray(held.grads_RD)
        slots_R = self.find(held.ids_R)
        new_R = np.flatnonzero((slots_R < 0) & grads_RD.any(axis=1))
        new_slots_R = self.insert(held.ids_R[new_R])
        waits_R = np.ones(len(slots_R), np.bool_)
        _, norms_R = self.accumulate(slots_R, grads_RD, NO_ELEMENTS, waits_R)
        self.hold(new_slots_R, grads_RD, new_R, NO_ELEMENTS, waits_R[new_R], norms_R[new_R])
        slots_R[new_R] = new_slots_R
        self.history.note_held(slots_R[(slots_R >= 0) & (norms_R > 0)])
        self.history.since_S[slots_R[(slots_R >= 0) & (norms_R == 0)]] = NEVER

    def remember(self, ids_N: Ids) -> Slots:
        """Gives slots to ids of which nothing is held, as `insert` does."""
        slots_N = self.insert(ids_N)
        self._residuals.array[slots_N] = 0
        return slots_N

    def all(self) -> Held:
        """Returns a copy of all gradients held, ids ascending."""
        slots_N = self._held_slots()
        return Held(self._ids.array[slots_N], self._residuals.array[slots_N])

    def send_off(self, slots_N: Slots) -> Held:
        """Returns the gradients held in these slots, to be sent. The rows keep their slots and their history."""
        held = Held(self._ids.array[slots_N], self._residuals.array[slots_N])
        self._residuals.array[slots_N] = 0
        self.note_sent(slots_N)
        self.history.note_pushed(slots_N, held.grads_RD)
        return held

    def send_off_all(self, most: int | None = None) -> Held:
        """Returns all gradients held, to be sent, ids ascending; with `most`, of at most so many rows."""
        return self.send_off(self._held_slots()[:most])

    def quiet(self, hold: Hold) -> Slots:
        """Returns the slots of rows of which something would be held for too long, by ascending id. Empty in a step
        that does not sweep; called when the step's own rows are settled."""
        return self.by_id(self.history.quiet(hold, self._used))

    def note_refused(self, held: Held) -> None:
        """Notes that these gradients were not applied after all."""
        slots_R = self.find(held.ids_R)
        known_R = slots_R >= 0
        self.history.note_refused(slots_R[known_R], held.grads_RD[known_R])

    def idle(self, most: int) -> Slots:
        """Returns the slots of at most so many rows of which nothing is held and that this step does not name: those
        that no step has named for the longest, and of rows that were last named in one step those with lower ids."""
        slots_N = np.flatnonzero(self.norms_S == 0)
        slots_N = slots_N[self.history.seen_S[slots_N] < self.history.step]
        if len(slots_N) <= most:
            return slots_N
        seen_N = self.history.seen_S[slots_N]
        last = np.partition(seen_N, most)[most]
        older_N, ties_N = slots_N[seen_N < last], self.by_id(slots_N[seen_N == last])
        return np.concatenate((older_N, ties_N[: most - len(older_N)]))

    def by_id(self, slots_N: Slots) -> Slots:
        """Returns these slots, which are in use, by ascending id. Slots come in another order after a state was loaded,
        and nothing that is decided may depend on it."""
        ordered_N: Slots = slots_N[np.argsort(self._ids.array[slots_N])]
        return ordered_N

    def clear(self) -> None:
        """Drops everything."""
        self.release(np.flatnonzero(self.norms_S >= 0))

    def history_state(self) -> dict[str, Any]:
        """Returns the history by id, as numbers and tensors."""
        slots_N = self.by_id(np.flatnonzero(self.norms_S >= 0))
        return {"ids": torch.from_numpy(self._ids.array[slots_N]), **self.history.state(slots_N)}

    def load_history(self, state: Mapping[str, Any]) -> None:
        """Takes up the history of rows of which something is held, and of other rows as far as there is room."""
        ids_N = np.asarray(state["ids"])
        slots_N = self.find(ids_N)
        new_N = np.flatnonzero(slots_N < 0)[: max(0, self.max_rows - len(self))]
        slots_N[new_N] = self.remember(ids_N[new_N])
        self.history.load(state, slots_N)

    def _held_slots(self) -> Slots:
        """Returns the slots of the rows of which something is held, by ascending id."""
        return self.by_id(np.flatnonzero(self.norms_S > 0))
