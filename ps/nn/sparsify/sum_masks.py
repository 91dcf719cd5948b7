"""Decides which elements of pooled sums the shards send: dynamic thresholds on activations.

Every so many steps a table's sums are pulled whole, to find the threshold that the wanted share of their elements
reaches. In the steps between, the shards leave out smaller elements, which then read as 0 (Gupta et al., KDD 2021, the
forward half of their model parallelism). A shard compares its own part of a sum, so with several of them somewhat fewer
elements are sent than asked for.

There is no error feedback for masks: a sum belongs to one sample, and what is left out of it cannot be added to the sum
of another. The rows on the shards do not change; only the batch reads them less exactly.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

import numpy as np
import torch

from ps.errors import InvalidArgument
from ps.nn.sparsify.thresholds import Sparsify, Threshold, kth_largest


class SumMasks:
    """The masks of one collection, by table."""

    def __init__(self, configs: Mapping[str, Sparsify], seed: int = 0) -> None:
        """Raises InvalidArgument for a mask that is not by elements."""
        if wrong := sorted(name for name, config in configs.items() if config.by != "elements"):
            raise InvalidArgument(f'mask_sums of tables {wrong}: sums are masked element by element: by="elements"')
        self._masks = {name: _Mask(config, seed) for name, config in configs.items()}

    def next(self, pooled: Container[str]) -> dict[str, float]:
        """Returns, for each table that is masked in this step, the magnitude below which elements of its sums may be
        left out."""
        return {name: mask.below for name, mask in self._masks.items() if name in pooled and not mask.due}

    def observe(self, pooled: Container[str], rows: Mapping[str, torch.Tensor]) -> None:
        """Takes in the sums that were pulled with these masks."""
        for name, mask in self._masks.items():
            if name in pooled:
                mask.observe(rows[name])

    def state(self) -> dict[str, Any]:
        """Returns the state by table as plain numbers, for `load`."""
        return {name: mask.state() for name, mask in self._masks.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state; a mask that it lacks begins as a new one. Raises InvalidArgument for tables that have
        no mask."""
        if unknown := sorted(state.keys() - self._masks.keys()):
            raise InvalidArgument(f"the state has masks of tables {unknown}, mask_sums is for {sorted(self._masks)}")
        for name, of_table in state.items():
            self._masks[name].load(of_table)


class _Mask:
    def __init__(self, config: Sparsify, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._step = self._estimated_at = 0
        self.below = config.value if isinstance(config, Threshold) else 0.0

    @property
    def due(self) -> bool:
        """Returns whether this step's sums must come whole: in steps 0, 1, 2, 4, 8, ... and then as `TopK` says."""
        if isinstance(self._config, Threshold):
            return False
        period = min(self._config.reestimate_every, max(1, self._estimated_at))
        return self._step == 0 or self._step - self._estimated_at >= period

    def observe(self, sums_BD: torch.Tensor) -> None:
        if not isinstance(self._config, Threshold) and self.due and sums_BD.numel():
            flat_N, sample = sums_BD.detach().numpy().reshape(-1), self._config.sample
            if len(flat_N) > sample:
                flat_N = flat_N[np.random.default_rng((self._seed, self._step)).integers(0, len(flat_N), sample)]
            found = float(kth_largest(np.abs(flat_N), self._config.density_at(self._step)))
            self.below = found if math.isfinite(found) else 0.0  # rows that have diverged are not for this to tell
            self._estimated_at = self._step
        self._step += 1

    def state(self) -> dict[str, Any]:
        return {"step": self._step, "estimated_at": self._estimated_at, "below": self.below}

    def load(self, state: Mapping[str, Any]) -> None:
        self._step, self._estimated_at = int(state["step"]), int(state["estimated_at"])
        if not isinstance(self._config, Threshold):
            self.below = float(state["below"])
