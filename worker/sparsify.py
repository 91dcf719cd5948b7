"""What of a step's gradients is sent, and what is held back until it is worth sending (error feedback).

    total = gradient + residual of the row  --->  as large as the threshold: sent, its residual is 0
                                            --->  smaller: it is the row's residual, added to its next gradient

So nothing is ever lost: what was sent plus what is held is the sum of all gradients (exactly, but for the rounding of
float32 sums). Error feedback is what makes it converge as dense pushes do: Stich et al. 2018; Karimireddy et al. 2019.

**Retries.** `select` moves gradients out of the residuals into a `Selection`, which owns them until its fate is known.
Send it, and the same one again where a push is retried: the shards' ledgers know it. Then say `commit` when it is
applied, or `rollback` when it is known that it was not and will not be: what it had is held again, added to what has
been held since, so other steps may be selected meanwhile. Of a push whose fate is unknown neither is right: repeat it.
While a selection is open, `state_dict` refuses.

**Relaxed rows** (`worker.relaxation`) are held whatever their size, and sent whole when they are due: no threshold is
asked, and none is estimated from them. What else may send a row sends them too: the bound, `flush`, being new.

**Optimizers** run on the shards, and so do their momenta and accumulators: a trainer has none. They see gradients that
come late and summed, G = g1 + ... + gn in one push instead of n. No momentum needs correction or masking (Deep Gradient
Compression needs both, for its momentum comes before the selection). A row that is not sent counts as
used, for its importance, and is not updated: nothing of its value or state decays.

- SGD is linear in the gradient: the value moves as far as it would have, only later.
- Adagrad: h grows by G*G instead of the sum of the g*g. Where the n gradients agree that is up to n times as much, and
  the one step is smaller than the n together; where they are noise it is about the same. No step is larger than lr. So
  it is slower at worst, never unstable. An element that is not sent is 0, and changes nothing.
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
from typing import Any

import numpy as np
import torch

from ps.errors import InvalidArgument, ResourceExhausted
from ps.wire.selected import Selected
from worker.estimator import Estimator
from worker.relaxation import Pace, Relaxation
from worker.residuals import NO_ELEMENTS, Held, Ids, ResidualStore, Rows
from worker.selection import Flags, Selection, checked, checked_rows, make_room
from worker.thresholds import Relaxed, Sparsify, Threshold, TopK

__all__ = ["Held", "Relaxed", "Selection", "Sparsifier", "Sparsify", "Threshold", "TopK"]

MAX_BYTES = 256 << 20
"""Of residuals, by default."""
FORMAT = 2
"""Of `state_dict`."""


class Sparsifier:
    """Selects what is sent of one table's gradients, for one worker. Threads: any, one at a time within.

    What is held back takes at most `max_bytes` after a `select` (counted as `worker.residuals` says; pages are rounded
    up). Over it, the rows with the largest residuals are sent, of this step or not. A `rollback` may stand above it
    until the next `select`.
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
    ) -> Selection:
        """What to send of a step's gradients; the rest is held back.

        ids_U: int64 [U], unique. grads_UD: float32 [U, D], in their order. always_U: bool [U], rows that are sent whole
        however small, as new rows should be. For `relaxed`: rows_UD float32 [U, D], their values as pulled (None: in
        this step no row waits), and important_U bool [U], which of them may (None: any). Raises DtypeMismatch,
        LengthMismatch, DimensionMismatch or NonFiniteGradient, and then nothing has changed.
        """
        ids_U, grads_UD, always_U = checked(ids_U, grads_UD, always_U, self._store.dim)
        rows_UD, important_U = checked_rows(rows_UD, important_U, grads_UD)
        with self._lock:
            store, slots_U = self._store, self._store.find(ids_U)
            pace = self._pace(ids_U, grads_UD, rows_UD, always_U, important_U)
            apart_U = always_U | pace.relaxed_U
            threshold = self._estimator.next(store, slots_U, grads_UD, apart_U)
            by_elements = self.config.by == "elements"
            element_threshold = threshold if by_elements else NO_ELEMENTS
            picked_U, norms_U = store.accumulate(slots_U, grads_UD, element_threshold, pace.waits_U)
            whole_U = always_U | pace.due_U
            if not by_elements:
                whole_U |= (norms_U >= threshold) & ~pace.waits_U
            self._estimator.observe(picked_U if by_elements else whole_U, apart_U, store.dim if by_elements else 1)
            stays_U = ~whole_U & (norms_U > 0) & self._feedback
            others, also_N = make_room(store, slots_U, norms_U, stays_U)
            whole_U[also_N], stays_U[also_N] = True, False
            new_N = np.flatnonzero(stays_U & (slots_U < 0))
            new_slots_N = np.empty(0, np.int64)
            try:
                new_slots_N = store.insert(ids_U[new_N])
            except ResourceExhausted:  # the host has no memory for them: as over the bound, they are sent
                whole_U[new_N], new_N = True, new_N[:0]
            rows_R = np.flatnonzero(whole_U | (picked_U > 0))
            store.note_sent(slots_U[whole_U & (slots_U >= 0)])
            grads_RD = store.send(slots_U[rows_R], grads_UD, rows_R, whole_U[rows_R], element_threshold)
            store.hold(  # into slots just freed, perhaps
                new_slots_N, grads_UD, new_N, element_threshold, pace.waits_U[new_N], norms_U[new_N]
            )
            if self._relaxation is not None:
                self._relaxation.note_sent(ids_U[whole_U])
            return self._opened(Selected(rows_R, grads_RD, by_elements), ids_U[rows_R], others)

    def flush(self, most: int | None = None) -> Selection:
        """All that is held, to be pushed by ids: `others` of a selection without rows of a step. With `most`, so many
        rows of it at most: flush again until there are none."""
        with self._lock:
            nothing = Selected(np.empty(0, np.int64), np.empty((0, self._store.dim), np.float32), False)
            return self._opened(nothing, np.empty(0, np.int64), self._store.take_all(most))

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
            self._store.add(selection.by_id())
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
                "relaxed": self._relaxation.state() if self._relaxation is not None else None,
            }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` gave, and drops what is held now. Above `max_bytes` it is held until the next
        `select`. Raises InvalidArgument, and then nothing has changed."""
        with self._lock:
            self._check_none_open("loaded")
            kind = self._kind()
            if wrong := {key: state.get(key) for key in kind if state.get(key) != kind[key]}:
                raise InvalidArgument(f"the state has {wrong}, and this is a sparsifier of {kind}: make them agree")
            ids_R, grads_RD = np.asarray(state["ids"]), np.asarray(state["residuals"])
            ids_R, grads_RD, _ = checked(ids_R, grads_RD, None, self._store.dim)
            self._store.take_all()
            self._store.add(Held(ids_R, grads_RD))
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

    def _kind(self) -> dict[str, Any]:
        return {"format": FORMAT, "dim": self._store.dim, "by": self.config.by}

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
