"""The threshold of each step: fixed, or estimated from a sample every so many steps. See `worker.thresholds`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.residuals import ResidualStore, Rows, Slots
from worker.thresholds import DRIFT, ESTIMATE_AGAIN, SOONER, Sparsify, Threshold, TopK, kth_largest, measured


class Estimator:
    """Counts steps and knows the threshold: a squared norm by rows, an absolute value by elements."""

    def __init__(self, config: Sparsify, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._threshold = measured(config.value, config.by) if isinstance(config, Threshold) else np.float32(0)
        self._step = 0
        self._estimated_at = 0
        self._estimated_density = math.inf  # above any: the first step has no estimate
        self._sent = self._seen = 0  # rows or elements since the last estimate, but those that had to be sent
        self.estimates = 0
        """How many were made."""

    @property
    def size(self) -> float:
        """The threshold as a norm, or an absolute value."""
        return math.sqrt(self._threshold) if self._config.by == "rows" else float(self._threshold)

    def next(self, store: ResidualStore, slots_U: Slots, grads_UD: Rows, always_U: npt.NDArray[np.bool_]) -> np.float32:
        """The threshold for this step. Estimated from the totals of the rows that need not be sent, where it is due."""
        config = self._config
        if isinstance(config, TopK) and self._is_due(config) and not always_U.all():
            rows_N = np.flatnonzero(~always_U)
            sizes_N = self._sample(config, store, slots_U, grads_UD, rows_N)
            self._estimated_density = config.density_at(self._step)
            self._threshold = kth_largest(sizes_N, self._estimated_density)
            self._estimated_at = self._step
            self._sent = self._seen = 0
            self.estimates += 1
        self._step += 1
        return self._threshold

    def observe(self, sent_U: npt.NDArray[Any], always_U: npt.NDArray[np.bool_], of_each: int) -> None:
        """How many of each row, of `of_each`, reached the threshold; not counted of rows that are sent anyway."""
        self._sent += int(sent_U[~always_U].sum())
        self._seen += of_each * int(np.count_nonzero(~always_U))

    def state(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "step": self._step,
            "threshold": float(self._threshold),
            "estimated_at": self._estimated_at,
            "estimated_density": self._estimated_density,
            "sent": self._sent,
            "seen": self._seen,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from there. A fixed threshold stays that of the configuration."""
        self._step, self._estimated_at = int(state["step"]), int(state["estimated_at"])
        self._estimated_density = float(state["estimated_density"])
        self._sent, self._seen = int(state["sent"]), int(state["seen"])
        if isinstance(self._config, TopK):
            self._threshold = np.float32(state["threshold"])

    def _is_due(self, config: TopK) -> bool:
        if config.density_at(self._step) <= ESTIMATE_AGAIN * self._estimated_density:
            return True
        period = min(config.reestimate_every, max(1, self._estimated_at))
        wanted = self._estimated_density * self._seen
        if not wanted / DRIFT < self._sent < wanted * DRIFT:
            period = -(-period // SOONER)
        return self._step - self._estimated_at >= period

    def _sample(
        self, config: TopK, store: ResidualStore, slots_U: Slots, grads_UD: Rows, rows_N: npt.NDArray[np.int64]
    ) -> Rows:
        """Sizes of some of these rows' totals, of all where they are few: float32 [config.sample] at most."""
        dim = grads_UD.shape[1]
        if config.by == "rows":
            rows_N = rows_N[self._draw(len(rows_N), config.sample)]
            total_ND: Rows = grads_UD[rows_N]
            held_N = slots_U[rows_N] >= 0
            total_ND[held_N] += store.residuals_SD[slots_U[rows_N[held_N]]]
            norms_N: Rows = np.einsum("nd,nd->n", total_ND, total_ND)
            return norms_N
        places_N = self._draw(len(rows_N) * dim, config.sample)
        rows_N, columns_N = rows_N[places_N // dim], places_N % dim
        total_N: Rows = grads_UD[rows_N, columns_N]
        held_N = slots_U[rows_N] >= 0
        total_N[held_N] += store.residuals_SD[slots_U[rows_N[held_N]], columns_N[held_N]]
        return np.abs(total_N)

    def _draw(self, n: int, most: int) -> npt.NDArray[np.int64]:
        """Positions in [0, n): all of them, or `most` drawn with replacement, from seed and step alone."""
        return np.arange(n) if n <= most else np.random.default_rng((self._seed, self._step)).integers(0, n, most)
