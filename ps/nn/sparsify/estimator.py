"""The threshold of each step: fixed, or estimated from a sample every so many steps (`ps.nn.sparsify.thresholds`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Positions, Rows
from ps.nn.sparsify.thresholds import DRIFT, ESTIMATE_AGAIN, SOONER, Sparsify, Threshold, TopK, kth_largest, measured


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
        """How many estimates were made."""

    @property
    def size(self) -> float:
        """The threshold as the norm of a row, or as the absolute value of an element."""
        return math.sqrt(self._threshold) if self._config.by == "rows" else float(self._threshold)

    def next(self, apart_U: Flags, sizes: Callable[[Positions], Rows], of_each: int = 1) -> np.float32:
        """Returns the threshold for this step. If an estimate is due, it is made from the gradients that need not be
        sent anyway.

        apart_U: bool [U], rows to which no threshold applies. `sizes` returns the sizes at given places: squared norms
        of rows, or absolute values of elements, of which a row has `of_each`: element j of row i is at place i *
        of_each + j.
        """
        config = self._config
        if isinstance(config, TopK) and self._is_due(config) and not apart_U.all():
            rows_N = np.flatnonzero(~apart_U)
            drawn_N = self._draw(len(rows_N) * of_each, config.sample)
            self._estimated_density = config.density_at(self._step)
            sizes_N = sizes(rows_N[drawn_N // of_each] * of_each + drawn_N % of_each)
            self._threshold = kth_largest(sizes_N, self._estimated_density)
            self._estimated_at = self._step
            self._sent = self._seen = 0
            self.estimates += 1
        self._step += 1
        return self._threshold

    def observe(self, sent_U: npt.NDArray[Any], apart_U: Flags, of_each: int) -> None:
        """Notes how many of the `of_each` sizes of each row reached the threshold. Rows that are sent anyway are not
        counted."""
        self._sent += int(sent_U[~apart_U].sum())
        self._seen += of_each * int(np.count_nonzero(~apart_U))

    def state(self) -> dict[str, Any]:
        """Returns the state as plain numbers, for `load`."""
        return {
            "step": self._step,
            "threshold": float(self._threshold),
            "estimated_at": self._estimated_at,
            "estimated_density": self._estimated_density,
            "sent": self._sent,
            "seen": self._seen,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state. A fixed threshold stays the one of the configuration."""
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

    def _draw(self, n: int, most: int) -> npt.NDArray[np.int64]:
        """Returns positions in [0, n): all of them, or `most` drawn with replacement, from seed and step alone."""
        return np.arange(n) if n <= most else np.random.default_rng((self._seed, self._step)).integers(0, n, most)
