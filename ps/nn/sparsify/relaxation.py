"""Relaxed synchronisation: decides which important rows of a step wait because they have converged.

    x = min(1, |gradient| / |value|)              of one step that has the row; value: as pulled
    mean += (x - mean) / min(n, window)           n: steps that had it so far
    converged: n >= window and mean <= ratio
    due: (step + phase) // every is not what it was when the row was last sent; phase = hash(id) % every

A row that is important, converged and not due waits: its gradient goes to the residuals, whatever its size. One that is
due is sent whole. A row's gradients are watched while it waits, so it stops waiting when they grow.

**Every K-th step, not every K-th occurrence**: so gradients that are held are never older than K steps when the row
comes again. By occurrences a row of every tenth step would be held for 10 K steps, and other trainers would not hear of
it; it is not hot, and holding it back saves little. Rows that are in every step, which are those that cost, are sent
every K-th time by either count. The phase spreads them over the steps, or all would be due in the same one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ps.arrays import Flags, Ids, Rows
from ps.kernels.index.hashing import hash_ids
from ps.kernels.updates import convergence as kernels
from ps.kernels.updates.convergence import STATISTIC
from ps.nn.sparsify.convergence import ConvergenceStore
from ps.nn.sparsify.thresholds import Relaxed


@dataclass(frozen=True)
class Pace:
    """Which rows of a step wait and which are due, bool [U]; no row is both."""

    waits_U: Flags
    due_U: Flags

    @property
    def relaxed_U(self) -> Flags:  # noqa: N802  an array, so its name carries its shape
        """The rows that wait or are due, bool [U]: no threshold applies to them."""
        return self.waits_U | self.due_U


class Relaxation:
    """Decides which rows of one table wait. Threads: one at a time."""

    def __init__(self, config: Relaxed) -> None:
        """Raises ConfigError if not even one row fits in `config.max_bytes`."""
        self.config = config
        self.store = ConvergenceStore(config.max_bytes)
        self._step = 0
        self.waited = 0
        """How many times a row has waited."""

    def next(self, ids_U: Ids, grads_UD: Rows, values_UD: Rows, always_U: Flags, important_U: Flags) -> Pace:
        """Watches this step's gradients, and says which rows wait and which are due."""
        self._step += 1
        self.store.reset(ids_U[always_U])
        rows_N = np.flatnonzero(important_U & ~always_U)
        slots_N = self.store.find_or_insert(ids_U[rows_N], self._step)
        rows_N, slots_N = rows_N[slots_N >= 0], slots_N[slots_N >= 0]
        records_S, config = self.store.records_S, self.config
        kernels.observe(records_S, slots_N, rows_N, grads_UD, values_UD, config.window, self._step)
        of_N = records_S[slots_N]
        converged_N = (of_N["seen"] >= config.window) & (of_N["mean"] <= np.float32(config.ratio))
        due_N = self._turn(of_N["id"], self._step) != self._turn(of_N["id"], of_N["sent_at"])
        pace = Pace(np.zeros(len(ids_U), np.bool_), np.zeros(len(ids_U), np.bool_))
        pace.waits_U[rows_N], pace.due_U[rows_N] = converged_N & ~due_N, converged_N & due_N
        self.waited += int(np.count_nonzero(pace.waits_U))
        return pace

    def note_sent(self, ids_N: Ids) -> None:
        """Notes rows that were sent whole in this step, for whatever reason. Rows without statistics are passed
        over."""
        slots_N = self.store.find(ids_N)
        self.store.records_S["sent_at"][slots_N[slots_N >= 0]] = self._step

    def state(self) -> dict[str, Any]:
        """Returns the state as numbers and tensors, for `load`."""
        records_N = self.store.all()
        tensors = {name: torch.from_numpy(np.ascontiguousarray(records_N[name])) for name in STATISTIC.names or ()}
        return {"step": self._step, "waited": self.waited, **tensors}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state."""
        records_N = np.zeros(len(state["id"]), STATISTIC)
        for name in STATISTIC.names or ():
            records_N[name] = np.asarray(state[name])
        self.store.load(records_N)
        self._step, self.waited = int(state["step"]), int(state["waited"])

    def _turn(self, ids_N: Ids, steps_N: npt.NDArray[np.int32] | int) -> npt.NDArray[np.int64]:
        """Returns numbers that change every `every` steps, at another step for each id."""
        words_N = np.empty(len(ids_N), np.uint64)
        hash_ids(np.ascontiguousarray(ids_N), words_N)
        phase_N = (words_N % np.uint64(self.config.every)).astype(np.int64)
        return (phase_N + steps_N) // self.config.every
