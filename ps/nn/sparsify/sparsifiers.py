"""What of a step's gradients is sent, and what is held back until it is worth sending (error feedback).

    total = gradient + residual of the row  --->  as large as the threshold: sent, its residual is 0
                                            --->  smaller: it is the row's residual, added to its next gradient

So nothing is ever lost: what was sent plus what is held is the sum of all gradients (exactly, but for the rounding of
float32 sums). Error feedback is what makes it converge as dense pushes do: Stich et al. 2018; Karimireddy et al. 2019.

**Bounds** (`Hold`, in `ps.nn.sparsify.thresholds`): a row of which much would be held against what was pushed of it is
sent, and what has been held for some steps, whether the row comes again or not. Without them ids that come in bursts
get most of their gradients when the burst is over, or never.

**Retries.** `select` moves gradients out of the residuals into a `Selection`, which owns them until its fate is known.
Send it, and the same one again where a push is retried: the shards' ledgers know it. Then say `commit` when it is
applied, or `rollback` when it is known that it was not and will not be: what it had is held again, added to what has
been held since, so other steps may be selected meanwhile. Of a push whose fate is unknown neither is right: repeat it.
While a selection is open, `state_dict` refuses.

**Relaxed rows** (`ps.nn.sparsify.relaxation`) are held whatever their size, and sent whole when they are due: no
threshold is asked, and none is estimated from them. What else may send a row sends them too: the bound, `flush`, being
new.

**Optimizers** run on the shards, and so do their momenta and accumulators: a trainer has none. They see gradients that
come late and summed, G = g1 + ... + gn in one push instead of n. No momentum needs correction or masking (Deep Gradient
Compression needs both, for its momentum comes before the selection). A row that is not sent counts as
used, for its importance, and is not updated: nothing of its value or state decays.

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

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from ps import Selected
from ps.arrays import Flags, Ids, Rows, Slots
from ps.errors import InvalidArgument, ResourceExhausted
from ps.nn.sparsify.estimator import Estimator
from ps.nn.sparsify.relaxation import Pace, Relaxation
from ps.nn.sparsify.residuals import NO_ELEMENTS, Held, ResidualStore
from ps.nn.sparsify.selection import Parted, Selection, checked, checked_rows, free_idle, joined, make_room
from ps.nn.sparsify.thresholds import Hold, Relaxed, Sparsify, Threshold, TopK

__all__ = ["Held", "Hold", "Relaxed", "Selection", "Sparsifier", "Sparsify", "Threshold", "TopK"]

MAX_BYTES = 256 << 20
"""Of residuals, by default."""
FORMAT = 3
"""Of `state_dict`."""
WITHOUT_HISTORY = 2
"""A format that is read, too: its rows begin anew."""


class Sparsifier:
    """Selects what is sent of one table's gradients, for one worker. Threads: any, one at a time within.

    What is held back, and what is known of rows, takes at most `max_bytes` after a `select` (counted as
    `ps.nn.sparsify.residuals` says; pages are rounded up). Over it, rows of which nothing is held are forgotten, those
    first that no step has named for the longest; then the rows with the largest residuals are sent, of this step or
    not. A `rollback` may stand above it until the next `select`.
    """

    def __init__(self, config: Sparsify, dim: int, *, max_bytes: int = MAX_BYTES, seed: int = 0) -> None:
        """seed: decides the samples that thresholds are estimated from. Raises ConfigError."""
        self.config = config
        self._store = ResidualStore(dim, max_bytes)
        self._estimator = Estimator(config, seed)
        self._feedback = isinstance(config, Threshold) or config.error_feedback
        self._relaxation = Relaxation(config.relaxed) if config.relaxed is not None else None
        self._open: dict[int, Selection] = {}
        self._selections = 0
        self._lock = threading.Lock()

    @property
    def rows_held(self) -> int:
        """Ids of which something is held."""
        return int(np.count_nonzero(self._store.norms_S > 0))

    @property
    def dim(self) -> int:
        """Of its rows."""
        return self._store.dim

    @property
    def nbytes(self) -> int:
        """Bytes of the places of what is held, or was a little ago, as `max_bytes` counts them."""
        return self._store.nbytes

    @property
    def threshold(self) -> float:
        """The norm of a row, or the absolute value of an element, from which on the last step's were sent."""
        return self._estimator.size

    @property
    def estimates(self) -> int:
        """How often the threshold was estimated."""
        return self._estimator.estimates

    @property
    def rows_waited(self) -> int:
        """How many times a row that had converged has waited (`relaxed`)."""
        return self._relaxation.waited if self._relaxation is not None else 0

    @property
    def statistics_nbytes(self) -> int:
        """Bytes of what is known of rows that may be relaxed, as `Relaxed.max_bytes` counts them."""
        return self._relaxation.store.nbytes if self._relaxation is not None else 0

    def select(
        self,
        ids_U: Ids,
        grads_UD: Rows,
        always_U: Flags | None = None,
        *,
        rows_UD: Rows | None = None,
        important_U: Flags | None = None,
        send_others: bool = True,
    ) -> Selection:
        """What to send of a step's gradients; the rest is held back.

        ids_U: int64 [U], unique. grads_UD: float32 [U, D], in their order. always_U: bool [U], rows that are sent whole
        however small, as new rows should be. For `relaxed`: rows_UD float32 [U, D], their values as pulled (None: in
        this step no row waits), and important_U bool [U], which of them may (None: any). send_others: whether rows that
        no step names any more are sent, as `hold` says. Raises DtypeMismatch, LengthMismatch, DimensionMismatch or
        NonFiniteGradient, and then nothing has changed.
        """
        ids_U, grads_UD, always_U = checked(ids_U, grads_UD, always_U, self._store.dim)
        rows_UD, important_U = checked_rows(rows_UD, important_U, grads_UD)
        with self._lock:
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
            if (hold := self.config.hold) is not None:
                self._remember(ids_U, always_U, rows_R, grads_RD)
                others = joined(others, store.send_off(store.quiet(hold) if send_others else new_N[:0]))
            return self._opened(Selected(rows_R, grads_RD, self.config.by == "elements"), ids_U[rows_R], others)

    def flush(self, most: int | None = None) -> Selection:
        """All that is held, to be pushed by ids: `others` of a selection without rows of a step. With `most`, so many
        rows of it at most: flush again until there are none."""
        with self._lock:
            nothing = Selected(np.empty(0, np.int64), np.empty((0, self._store.dim), np.float32), False)
            return self._opened(nothing, np.empty(0, np.int64), self._store.send_off_all(most))

    def commit(self, selection: Selection) -> None:
        """The selection has been applied. Raises InvalidArgument where it is not open."""
        with self._lock:
            self._check_open(selection)
            del self._open[selection.number]

    def rollback(self, selection: Selection) -> None:
        """The selection has not been applied, and will not be: what it had is held again.

        Raises InvalidArgument where it is not open, and ResourceExhausted when the host's memory is at its end; then
        it is open still.
        """
        with self._lock:
            self._check_open(selection)
            held = selection.by_id()
            self._store.add(held)
            self._store.note_refused(held)
            del self._open[selection.number]

    def forget(self, ids_N: Ids) -> Held:
        """Lets go of what is held of these ids, unique: rows that were removed or evicted. Returns what it was."""
        ids_N = np.ascontiguousarray(ids_N, np.int64)
        with self._lock:
            if self._relaxation is not None:
                self._relaxation.store.reset(ids_N)
            slots_N = self._store.find(ids_N)
            return self._store.take(slots_N[slots_N >= 0])

    def state_dict(self) -> dict[str, Any]:
        """For the trainer's checkpoint: numbers and tensors. Raises InvalidArgument while a selection is open."""
        with self._lock:
            self._check_none_open("saved")
            held = self._store.all()
            tensors = {"ids": torch.from_numpy(held.ids_R), "residuals": torch.from_numpy(held.grads_RD)}
            return {
                "format": FORMAT,
                "dim": self._store.dim,
                "by": self.config.by,
                **self._estimator.state(),
                **tensors,
                "history": self._store.history_state(),
                "relaxed": self._relaxation.state() if self._relaxation is not None else None,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, and drops what is held now. Above `max_bytes` it is held until the next
        `select`. Raises InvalidArgument, and then nothing has changed."""
        with self._lock:
            self._check_none_open("loaded")
            kind = self._kind()
            if wrong := {key: state.get(key) for key in kind if state.get(key) not in kind[key]}:
                raise InvalidArgument(f"the state has {wrong}, and this is a sparsifier of {kind}: make them agree")
            ids_R, grads_RD = np.asarray(state["ids"]), np.asarray(state["residuals"])
            ids_R, grads_RD, _ = checked(ids_R, grads_RD, None, self._store.dim)
            self._store.clear()
            self._store.add(Held(ids_R, grads_RD))
            if state["format"] == FORMAT:
                self._store.load_history(state["history"])
            self._estimator.load(state)
            if self._relaxation is not None and state["relaxed"] is not None:
                self._relaxation.load(state["relaxed"])

    def close(self) -> None:
        """Gives the memory back; what is held is lost, so `flush` first."""
        self._store.close()
        if self._relaxation is not None:
            self._relaxation.store.close()

    def _pace(self, ids_U: Ids, grads_UD: Rows, rows_UD: Rows | None, always_U: Flags, important_U: Flags) -> Pace:
        if self._relaxation is None or rows_UD is None:
            nobody_U = np.zeros(len(ids_U), np.bool_)
            return Pace(nobody_U, nobody_U)
        return self._relaxation.next(ids_U, grads_UD, rows_UD, always_U, important_U)

    def _part(self, slots_U: Slots, grads_UD: Rows, always_U: Flags, pace: Pace) -> Parted:
        """What is sent of the rows' totals, and what stays. Adds to what is held."""
        store, hold, dim = self._store, self.config.hold, self._store.dim
        apart_U, threshold = always_U | pace.relaxed_U, NO_ELEMENTS
        if self.config.by == "elements":
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
        """What is pushed of which row, as far as there is room: a row that is forgotten is sent whole the next time."""
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

    def _kind(self) -> dict[str, tuple[Any, ...]]:
        return {"format": (FORMAT, WITHOUT_HISTORY), "dim": (self._store.dim,), "by": (self.config.by,)}

    def _opened(self, selected: Selected, ids_R: Ids, others: Held) -> Selection:
        selection = Selection(self._selections, selected, ids_R, others)
        self._open[self._selections] = selection
        self._selections += 1
        return selection

    def _check_open(self, selection: Selection) -> None:
        if self._open.get(selection.number) is not selection:
            raise InvalidArgument(f"selection {selection.number} is not open here: commit or roll back each one once")

    def _check_none_open(self, what: str) -> None:
        if self._open:
            raise InvalidArgument(
                f"{len(self._open)} selections are open, and what they have would be missing from what is {what}: wait "
                "until their pushes have ended, and commit or roll back each"
            )
