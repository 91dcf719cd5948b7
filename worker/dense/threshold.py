"""A layer's hard threshold: estimated from time to time, compared with in between.

Estimating is a selection (O(n), from at most `sample_size` elements), comparing is one pass without any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from worker.dense.config import DenseConfig, LayerConfig

_SCATTER = 2_654_435_761  # Knuth's multiplier, a prime: positions that no row width divides
_WORD = 8
_SMALLEST = torch.finfo(torch.float32).smallest_normal


class Scratch:
    """Memory that is used again for every layer: taken anew, it comes in page by page, which costs more than a pass."""

    def __init__(self, largest: int, device: torch.device) -> None:
        self.floats = torch.empty(largest, device=device)
        self.mask = torch.empty(-(-largest // _WORD) * _WORD, dtype=torch.bool, device=device)


@dataclass
class Threshold:
    """Value None: not estimated yet."""

    value: float | None = None
    at_step: int = 0
    estimates: int = 0

    def select(
        self, grads_n: torch.Tensor, scratch: Scratch, layer: LayerConfig, config: DenseConfig, step: int
    ) -> torch.Tensor:
        """float32 [n] -> int64 [k], which to send, ascending.

        Zeros (and what is below 1.2e-38) are never sent. NaN is: it reaches all ranks, as without the hook.
        """
        magnitudes_n = torch.abs(grads_n, out=scratch.floats[: len(grads_n)])
        if self.value is None or step - self.at_step >= config.reestimate_every:
            self.value = self._estimate(magnitudes_n, layer, config, step)
        chosen_k = _not_below(magnitudes_n, self.value, scratch)
        if len(chosen_k) <= config.max_overshoot * layer.elements(len(grads_n)) or self.at_step == step:
            return chosen_k
        self.value = self._estimate(magnitudes_n, layer, config, step)
        return _not_below(magnitudes_n, self.value, scratch)

    def _estimate(self, magnitudes_n: torch.Tensor, layer: LayerConfig, config: DenseConfig, step: int) -> float:
        sample_m = _sample(magnitudes_n, config.sample_size, step)
        self.at_step = step
        self.estimates += 1
        return max(float(sample_m.topk(layer.elements(len(sample_m))).values[-1]), _SMALLEST)


def _not_below(magnitudes_n: torch.Tensor, threshold: float, scratch: Scratch) -> torch.Tensor:
    """Ascending positions; NaN is not below. Words of 8 marks first: most are empty, and that is 5 times faster."""
    n = len(magnitudes_n)
    mask = scratch.mask[: -(-n // _WORD) * _WORD]
    mask[n:] = False
    torch.lt(magnitudes_n, threshold, out=mask[:n]).logical_not_()
    words_w = mask.view(torch.int64).nonzero().squeeze(1)
    rows_k, columns_k = mask.view(-1, _WORD)[words_w].nonzero().unbind(1)
    return words_w[rows_k] * _WORD + columns_k


def _sample(magnitudes_n: torch.Tensor, size: int, step: int) -> torch.Tensor:
    """The same positions for the same step, so that a restored trainer goes on as it would have."""
    n = len(magnitudes_n)
    if n <= size:
        return magnitudes_n
    places_m = torch.arange(size, device=magnitudes_n.device)
    return magnitudes_n[(places_m * _SCATTER + step) % n]
