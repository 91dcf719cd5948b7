"""Selects which of a step's gradients are sent, and holds the others back until they are worth sending (error
feedback).

    total = gradient + residual of the row  --->  as large as the threshold: sent, its residual is 0
                                            --->  smaller: it is the row's residual, added to its next gradient

So nothing is ever lost: what was sent plus what is held is the sum of all gradients (exactly, but for the rounding of
float32 sums). Because of this error feedback, training converges as with whole pushes: Stich et al. 2018; Karimireddy
et al. 2019.

**Bounds** (`Hold`, in `ps.nn.sparsify.thresholds`): a row is sent if much would be held compared with what was pushed
of it, or if something has been held of it for some steps, whether the row comes again or not. Without these bounds, ids
that come in bursts get most of their gradients when the burst is over, or never.

**Retries.** `select` moves gradients out of the residuals into a `Selection`, which owns them until its fate is known.
Send it, and send the same one again if the push is retried: the shards' ledgers recognise it. Then call `commit` when
it is applied, or `rollback` when it is known that it was not applied and will not be: its gradients are held again,
added to what has been held since, so other steps may be selected meanwhile. If the fate of a push is unknown, neither
is right: repeat the push. While a selection is open, `state_dict` refuses.

**Relaxed rows** (`ps.nn.sparsify.relaxation`) are held whatever their size, and sent whole when they are due: no
threshold applies to them, and none is estimated from them. Like any row they are sent by the bounds, by `flush`, and
when they are new.

How the shards' optimizers see gradients that come late and summed is in `ps.nn.sparsify.parting`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ps import Selected
from ps.arrays import Flags, Ids, Rows
from ps.errors import InvalidArgument
from ps.nn.sparsify.estimator import Estimator
from ps.nn.sparsify.parting import Parting
from ps.nn.sparsify.relaxation import Relaxation
from ps.nn.sparsify.residuals import Held, ResidualStore
from ps.nn.sparsify.selection import OpenSelections, Selection, checked, checked_rows
from ps.nn.sparsify.thresholds import Hold, Relaxed, Sparsify, Threshold, TopK
from ps.runtime.memory import Memory

__all__ = ["Held", "Hold", "Relaxed", "Selection", "Sparsifier", "Sparsify", "Threshold", "TopK"]

MAX_BYTES = 256 << 20
"""Bytes of residuals, by default."""
FORMAT = 3
"""The version of `state_dict`'s format."""
WITHOUT_HISTORY = 2
"""An older version that `load_state_dict` reads too: its rows begin without a history."""


class Sparsifier:
    """Selects which of one table's gradients are sent, for one worker. Threads: any, one at a time within.

    What is held back, and what is known of rows, takes at most `max_bytes` after a `select` (as
    `ps.nn.sparsify.residual_arrays` counts; pages are rounded up). Above that, rows of which nothing is held are
    forgotten, those first that no step has named for the longest; then the rows with the largest residuals are sent, of
    this step or not. After a `rollback` more may be held until the next `select`.
    """

    def __init__(
        self,
        config: Sparsify,
        dim: int,
        *,
        max_bytes: int = MAX_BYTES,
        seed: int = 0,
        memory: Memory | None = None,
    ) -> None:
        """seed: decides the samples that thresholds are estimated from. memory: the host's memory, from which residuals
        are allocated. Raises ConfigError."""
        self.config = config
        self._store = ResidualStore(dim, max_bytes, memory)
        self._estimator = Estimator(config, seed)
        self._relaxation = Relaxation(config.relaxed) if config.relaxed is not None else None
        self._parting = Parting(config, self._store, self._estimator, self._relaxation)
        self._open = OpenSelections()
        self._lock = threading.Lock()

    @property
    def rows_held(self) -> int:
        """How many ids have a gradient held."""
        return int(np.count_nonzero(self._store.norms_S > 0))

    @property
    def dim(self) -> int:
        """Floats of a row."""
        return self._store.dim

    @property
    def nbytes(self) -> int:
        """The bytes of slots of gradients that are held, or were lately, as `max_bytes` counts them."""
        return self._store.nbytes

    @property
    def threshold(self) -> float:
        """The least norm of a row, or absolute value of an element, that was sent in the last step."""
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
        """The bytes of the statistics of rows that may be relaxed, as `Relaxed.max_bytes` counts them."""
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
        """Returns which of a step's gradients to send; the others are held back.

        ids_U: int64 [U], unique. grads_UD: float32 [U, D], in their order. always_U: bool [U], rows that are sent whole
        however small, as new rows should be. For `relaxed`: rows_UD float32 [U, D], their values as pulled (None: in
        this step no row waits), and important_U bool [U], which rows may wait (None: any). send_others: whether rows
        that no step names any more are sent, as `hold` says. Raises DtypeMismatch, LengthMismatch, DimensionMismatch or
        NonFiniteGradient, and then nothing has changed.
        """
        ids_U, grads_UD, always_U = checked(ids_U, grads_UD, always_U, self._store.dim)
        rows_UD, important_U = checked_rows(rows_UD, important_U, grads_UD)
        with self._lock:
            return self._open.add(
                *self._parting.select(ids_U, grads_UD, always_U, rows_UD, important_U, send_others=send_others)
            )

    def flush(self, most: int | None = None) -> Selection:
        """Returns all that is held, to be pushed by ids, as the `others` of a selection without rows of a step. With
        `most`, at most so many rows: flush again until none is left."""
        with self._lock:
            nothing = Selected(np.empty(0, np.int64), np.empty((0, self._store.dim), np.float32), False)
            return self._open.add(nothing, np.empty(0, np.int64), self._store.send_off_all(most))

    def commit(self, selection: Selection) -> None:
        """Notes that the selection has been applied. Raises InvalidArgument if it is not open."""
        with self._lock:
            self._open.remove(selection)

    def rollback(self, selection: Selection) -> None:
        """Holds a selection's gradients again, because it has not been applied and will not be.

        Raises InvalidArgument if the selection is not open, and ResourceExhausted when the host has no memory left;
        then the selection stays open.
        """
        with self._lock:
            self._open.check(selection)
            held = selection.by_id()
            self._store.add(held)
            self._store.note_refused(held)
            self._open.remove(selection)

    def forget(self, ids_N: Ids) -> Held:
        """Removes what is held of these ids, unique, whose rows were removed or evicted. Returns what was held."""
        ids_N = np.ascontiguousarray(ids_N, np.int64)
        with self._lock:
            if self._relaxation is not None:
                self._relaxation.store.reset(ids_N)
            slots_N = self._store.find(ids_N)
            return self._store.take(slots_N[slots_N >= 0])

    def state_dict(self) -> dict[str, Any]:
        """Returns the state for a checkpoint, as numbers and tensors. Raises InvalidArgument while a selection is
        open."""
        with self._lock:
            self._open.check_none("saved")
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
        """Takes up a state of `state_dict`, and drops what is held now. If the state exceeds `max_bytes`, all of it is
        held until the next `select`. Raises InvalidArgument, and then nothing has changed."""
        with self._lock:
            self._open.check_none("loaded")
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

    def _kind(self) -> dict[str, tuple[Any, ...]]:
        return {"format": (FORMAT, WITHOUT_HISTORY), "dim": (self._store.dim,), "by": (self.config.by,)}
