"""Parts a step's gradients: some are sent, the others are held back.

**Optimizers** run on the shards, with their momenta and accumulators: a trainer has none. They receive gradients late
and summed, G = g1 + ... + gn in one push instead of n. No momentum needs correction or masking (Deep Gradient
Compression needs both, for its momentum comes before the selection). A row that is not sent counts as used, for its
importance, and is not updated: nothing of its value or state decays.

- SGD is linear in the gradient: the value moves as far as it would have, only later.
- Adagrad: h grows by G*G instead of the sum of the g*g. Where the n gradients agree that is up to n times as much, and
  the one step is smaller than the n together; where they are noise it is about the same. No step is larger than lr. So
  it is slower at worst, never unstable. With `Hold.share` s, h is 1 / (1 - s*s) times what it was before the push at
  most, and what is held would move the values by about s * lr at most. An element that is not sent is 0, and changes
  nothing.
- Row-wise Adagrad: the same, with the mean of G*G over the row. By elements, a push adds to the mean what it carries.
- Adam (lazy: moments move when the row is pushed) makes steps of about lr however large G is. A row that is held for n
  steps makes one step instead of n, so it learns up to n times slower: take a higher density, or a larger lr. By rows
  its moments stay sound. By elements they do not: one that is not sent counts as a gradient of 0, which decays its
  moments and moves it by its old momentum. Use `by="rows"` with Adam.
- FTRL: z is linear in the gradient but for sigma * w, and n grows as Adagrad's h does: slower at worst, too. An element
  that is not sent has sigma = 0, so z and n stay, and w, which is made of them.
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from ps import Selected
from ps.arrays import Flags, Ids, Rows, Slots
from ps.errors import ResourceExhausted
from ps.nn.sparsify.estimator import Estimator
from ps.nn.sparsify.relaxation import Pace, Relaxation
from ps.nn.sparsify.residuals import NO_ELEMENTS, Held, ResidualStore
from ps.nn.sparsify.selection import Parted, free_idle, joined, make_room
from ps.nn.sparsify.thresholds import Sparsify, Threshold


class Parting:
    """Parts the gradients of the steps of one table. Threads: one at a time."""

    def __init__(
        self, config: Sparsify, store: ResidualStore, estimator: Estimator, relaxation: Relaxation | None
    ) -> None:
        self._config = config
        self._store = store
        self._estimator = estimator
        self._relaxation = relaxation
        self._feedback = isinstance(config, Threshold) or config.error_feedback

    def select(
        self,
        ids_U: Ids,
        grads_UD: Rows,
        always_U: Flags,
        rows_UD: Rows | None,
        important_U: Flags,
        *,
        send_others: bool,
    ) -> tuple[Selected, Ids, Held]:
        """Parts a step's gradients, which were checked as `Sparsifier.select` says. Returns what is sent of the step's
        rows, their ids, and what is sent of other rows."""
        store = self._store
        store.history.step += 1
        slots_U = store.find(ids_U)
        pace = self._pace(ids_U, grads_UD, rows_UD, always_U, important_U)
        parted = self._part(slots_U, grads_UD, always_U, pace)
        store.history.see(slots_U[slots_U >= 0])
        whole_U, stays_U, threshold = parted.whole_U, parted.stays_U, parted.threshold
        others, also_N = make_room(store, slots_U, parted.norms_U, stays_U)
        whole_U[also_N], stays_U[also_N] = True, False
        new_N = np.flatnonzero(stays_U & (slots_U < 0))
        new_slots_N = np.empty(0, np.int64)
        try:
            new_slots_N = store.insert(ids_U[new_N])
        except ResourceExhausted:  # the host has no memory for them: as over the bound, they are sent
            whole_U[new_N], stays_U[new_N], new_N = True, False, new_N[:0]
        rows_R = np.flatnonzero(whole_U | (parted.picked_U > 0))
        store.note_sent(slots_U[~stays_U & (slots_U >= 0)])
        grads_RD = store.send(slots_U[rows_R], grads_UD, rows_R, whole_U[rows_R], threshold)
        store.hold(  # into slots just freed, perhaps
            new_slots_N, grads_UD, new_N, threshold, pace.waits_U[new_N], parted.norms_U[new_N]
        )
        store.history.note_held(np.concatenate((slots_U[stays_U & (slots_U >= 0)], new_slots_N)))
        if self._relaxation is not None:
            self._relaxation.note_sent(ids_U[whole_U])
        if (hold := self._config.hold) is not None:
            self._remember(ids_U, always_U, rows_R, grads_RD)
            others = joined(others, store.send_off(store.quiet(hold) if send_others else new_N[:0]))
        return Selected(rows_R, grads_RD, self._config.by == "elements"), ids_U[rows_R], others

    def _pace(self, ids_U: Ids, grads_UD: Rows, rows_UD: Rows | None, always_U: Flags, important_U: Flags) -> Pace:
        if self._relaxation is None or rows_UD is None:
            nobody_U = np.zeros(len(ids_U), np.bool_)
            return Pace(nobody_U, nobody_U)
        return self._relaxation.next(ids_U, grads_UD, rows_UD, always_U, important_U)

    def _part(self, slots_U: Slots, grads_UD: Rows, always_U: Flags, pace: Pace) -> Parted:
        """Parts the rows' totals into what is sent, which it returns, and what is added to the residuals."""
        store, hold, dim = self._store, self._config.hold, self._store.dim
        apart_U, threshold = always_U | pace.relaxed_U, NO_ELEMENTS
        if self._config.by == "elements":
            threshold = self._estimator.next(apart_U, lambda n: store.total_sizes(slots_U, grads_UD, n), dim)
            picked_U, norms_U = store.accumulate(slots_U, grads_UD, threshold, pace.waits_U)
            whole_U = always_U | pace.due_U
            self._estimator.observe(picked_U, apart_U, dim)
        else:
            picked_U, norms_U = store.accumulate(slots_U, grads_UD, threshold, pace.waits_U)
            large_U = norms_U >= self._estimator.next(apart_U, norms_U.__getitem__)
            whole_U = always_U | pace.due_U | (large_U & ~pace.waits_U)
            self._estimator.observe(large_U, apart_U, 1)
        if hold is not None:
            heavy_U = store.history.heavy(hold, slots_U, norms_U) & ~pace.waits_U
            whole_U |= (heavy_U | store.history.late(hold, slots_U)) & (norms_U > 0)
        return Parted(picked_U, norms_U, whole_U, ~whole_U & (norms_U > 0) & self._feedback, threshold)

    def _remember(self, ids_U: Ids, always_U: Flags, rows_R: Slots, grads_RD: Rows) -> None:
        """Notes what is pushed of which row, as far as there is room. A row that is forgotten is sent whole the next
        time."""
        store, history = self._store, self._store.history
        slots_R = store.find(ids_U[rows_R])
        unknown_R = np.flatnonzero(slots_R < 0)
        if (missing := len(store) + len(unknown_R) - store.max_rows) > 0:
            free_idle(store, missing)
            unknown_R = unknown_R[: store.max_rows - len(store)]
        with suppress(ResourceExhausted):
            slots_R[unknown_R] = store.remember(ids_U[rows_R[unknown_R]])
        known_R = slots_R >= 0
        history.pushed_S[slots_R[known_R & always_U[rows_R]]] = 0  # a row that is new, again perhaps
        history.note_pushed(slots_R[known_R], grads_RD[known_R])
