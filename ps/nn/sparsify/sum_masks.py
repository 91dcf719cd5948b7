"""Which elements of the sums that shards send are worth sending: dynamic thresholds on activations.

Every so many steps a table's sums are pulled whole, and the threshold is found that the wanted share of their elements
reaches; in the steps between, the shards leave out what is smaller, which then reads as 0 (Gupta et al., KDD 2021, the
forward half of their model parallelism). A shard compares its own part of a sum, so with several of them somewhat
fewer elements are sent than asked for.

There is no error feedback for this: a sum belongs to one sample, and what is left out of it cannot be added to that of
another. Nothing of the rows on the shards is lost, though: it is the batch that sees them less exactly.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping

import numpy as np
import torch

from ps.errors import InvalidArgument
from ps.nn.sparsify.thresholds import Sparsify, Threshold, kth_largest


class SumMasks:
    """The masks of one collection, by table."""

    def __init__(self, configs: Mapping[str, Sparsify], seed: int = 0) -> None:
        """Raises InvalidArgument where one does not go by elements."""
        if wrong := sorted(name for name, config in configs.items() if config.by != "elements"):
            raise InvalidArgument(f'mask_sums of tables {wrong}: sums are masked element by element: by="elements"')
        self._masks = {name: _Mask(config, seed) for name, config in configs.items()}

    def next(self, pooled: Container[str]) -> dict[str, float]:
        """By table that has one in this step, below which magnitude its sums may be left out."""
        return {name: mask.below for name, mask in self._masks.items() if name in pooled and not mask.due}

    def observe(self, pooled: Container[str], rows: Mapping[str, torch.Tensor]) -> None:
        """What has been pulled by that."""
        for name, mask in self._masks.items():
            if name in pooled:
                mask.observe(rows[name])


class _Mask:
    def __init__(self, config: Sparsify, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._step = self._estimated_at = 0
        self.below = config.value if isinstance(config, Threshold) else 0.0

    @property
    def due(self) -> bool:
        """Whether this step's sums must come whole: in steps 0, 1, 2, 4, 8, ... and then as `TopK` says."""
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
