"""A layer's hard threshold: estimated from time to time, compared with in between.

Estimating is a selection (O(n), from at most `sample_size` elements), comparing is one pass without any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.dense.config import DenseConfig, LayerConfig

_SCATTER = 2_654_435_761  # Knuth's multiplier, a prime: positions that no row width divides
_SMALLEST = torch.finfo(torch.float32).smallest_normal


@dataclass
class Threshold:
    """Value None: not estimated yet."""

    value: float | None = None
    at_step: int = 0
    estimates: int = 0

    def select(
        self, grads_n: torch.Tensor, scratch: torch.Tensor, layer: LayerConfig, config: DenseConfig, step: int
    ) -> torch.Tensor:
        """float32 [n] -> int64 [k], which to send, ascending. scratch: float32 [n or more], overwritten.

        Zeros (and what is below 1.2e-38) are never sent. NaN is: it reaches all ranks, as without the hook.
        """
        magnitudes_n = torch.abs(grads_n, out=scratch[: len(grads_n)])
        if self.value is None or step - self.at_step >= config.reestimate_every:
            self.value = self._estimate(magnitudes_n, layer, config, step)
        chosen_k = _not_below(magnitudes_n, self.value)
        if len(chosen_k) <= config.max_overshoot * layer.elements(len(grads_n)) or self.at_step == step:
            return chosen_k
        self.value = self._estimate(magnitudes_n, layer, config, step)
        return _not_below(magnitudes_n, self.value)

    def _estimate(self, magnitudes_n: torch.Tensor, layer: LayerConfig, config: DenseConfig, step: int) -> float:
        sample_m = _sample(magnitudes_n, config.sample_size, step)
        below = len(sample_m) - layer.elements(len(sample_m))
        self.at_step = step
        self.estimates += 1
        return max(float(sample_m.kthvalue(below + 1).values), _SMALLEST)


def _not_below(magnitudes_n: torch.Tensor, threshold: float) -> torch.Tensor:
    return (magnitudes_n < threshold).logical_not_().nonzero().squeeze(1)  # NaN is not below


def _sample(magnitudes_n: torch.Tensor, size: int, step: int) -> torch.Tensor:
    """The same positions for the same step, so that a restored trainer goes on as it would have."""
    n = len(magnitudes_n)
    if n <= size:
        return magnitudes_n
    places_m = torch.arange(size, device=magnitudes_n.device)
    return magnitudes_n[(places_m * _SCATTER + step) % n]
