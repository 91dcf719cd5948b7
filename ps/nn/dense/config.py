"""Settings of the dense part's compression.

What a setting saves, everything counted, for n parameters and W trainers:

    dense, ring all-reduce          2 (W - 1) / W * 4 n                 bytes sent by a trainer
    here, all-gather                (W - 1) * (8 + 6 + k (p + v))       size, header, k = density * n elements
        v, a value                  2 (fp16) or 4 (fp32)
        p, a position               1 / (1 - (1 - density)^255)         gaps in bytes, 255 = nothing for 255 places

    factor at W = 2                 density 1 %,   fp16:  4 / (0.01  * (1.083 + 2)) = 129.7
                                    density 1 %,   fp32:  4 / (0.01  * (1.083 + 4)) =  78.7
                                    density 0.5 %, fp32:  4 / (0.005 * (1.386 + 4)) = 148.5

On average the wanted number of elements is sent, in one step at most `max_overshoot` times as many, and payloads are
padded to the longest of the ranks: 1.25 times 1 % is 105.2, so the factor lies between that and 129.7, less 14 bytes a
step, and less for layers so small that one element is above the density. A model of 5,313 elements has 55 of them for 1
%: 115 by the arithmetic, 102 to 103 measured while it learns (tests). With more trainers an all-gather grows while an
all-reduce does not: divide the factor by W / 2. So 100 at W = 8 takes about 0.24 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from ps.errors import ConfigError

ValueKind = Literal["fp32", "fp16"]


@dataclass(frozen=True)
class LayerConfig:
    """The setting of one layer, that is, of one parameter tensor.

    density: share of its elements that is sent; 1 sends all, by all-reduce: a synchronous layer. every: the layer is
    sent in each K-th step only, with all that gathered since: a relaxed layer.
    """

    density: float
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ConfigError(f"density={self.density}: a share above 0 and up to 1")
        if self.every < 1:
            raise ConfigError(f"every={self.every}: 1 sends in each step, K in each K-th")

    def elements(self, size: int) -> int:
        """Returns how many of a layer's n elements its density selects, at least one."""
        return max(1, round(self.density * size))


@dataclass(frozen=True)
class DenseConfig:
    """How the dense part's gradients are compressed; the same on every rank.

    density: share of a layer's elements that is sent in a step, for layers that `layers` does not name.
    layers: parameter-name pattern (`bottom.*`, `*.bias`) -> its own setting; the first that matches counts.
    values: "fp16" (the rounding error is held back like the rest) or "fp32".
    reestimate_every: steps after which a layer's threshold is estimated again, in between it follows what it lets pass;
        sooner where that is far off (`ps.nn.dense.threshold`).
    max_overshoot: bounds the elements sent, the largest, to so many times the number that the density wants.
    sample_size: elements that a threshold is estimated from; all of a layer that has no more.
    warm_up_steps: how many first steps send all gradients.
    error_feedback: False drops what is not sent, for comparisons: training gets worse.
    Raises `ConfigError` for a value out of range.
    """

    density: float = 0.01
    layers: Mapping[str, LayerConfig] = field(default_factory=dict)
    values: ValueKind = "fp16"
    reestimate_every: int = 50
    max_overshoot: float = 1.25
    sample_size: int = 65_536
    warm_up_steps: int = 0
    error_feedback: bool = True

    def __post_init__(self) -> None:
        LayerConfig(self.density)
        if self.values not in ("fp32", "fp16"):
            raise ConfigError(f'values={self.values!r}: "fp32" or "fp16"')
        if min(self.reestimate_every, self.sample_size) < 1 or self.warm_up_steps < 0:
            raise ConfigError(
                f"reestimate_every={self.reestimate_every} sample_size={self.sample_size} "
                f"warm_up_steps={self.warm_up_steps}: the first two are 1 or more, the last 0 or more"
            )
        if self.max_overshoot < 1:
            raise ConfigError(f"max_overshoot={self.max_overshoot}: 1 or more times the wanted elements")
        relaxed = [pattern for pattern, layer in self.layers.items() if layer.every > 1]
        if relaxed and not self.error_feedback:
            raise ConfigError(f"layers {relaxed} have every > 1, which needs error_feedback: gradients would be lost")

    def of_layers(self, names: list[str]) -> dict[str, LayerConfig]:
        """Returns the setting of each parameter. Raises `ConfigError` for a pattern that matches no parameter."""
        idle = [pattern for pattern in self.layers if not any(fnmatchcase(name, pattern) for name in names)]
        if idle:
            raise ConfigError(f"layers: {idle} match none of the parameters {names}")
        default = LayerConfig(self.density)
        return {
            name: next((layer for pattern, layer in self.layers.items() if fnmatchcase(name, pattern)), default)
            for name in names
        }
