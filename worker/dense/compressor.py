"""One rank's side of a step: which gradients go out now, and what is held back. It knows nothing of DDP or processes.

    gradient + residual --whole layer?--> all-reduce buffer, residual 0
                        `--not due?-----> residual
                        `--threshold----> payload, residual = what is not in it (fp16's rounding too)

So for each element: sum of what was sent + residual = sum of the gradients. The subtraction rounds nothing (what is
sent of a value is nothing, itself, or its fp16 neighbour). Adding a residual to a gradient rounds as any float32
addition does; with integers below 2^24 it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import torch

from ps.errors import InvalidArgument, LengthMismatch
from worker.dense.config import DenseConfig, LayerConfig
from worker.dense.payload import Packed, pack, unpack
from worker.dense.threshold import Scratch, Threshold

FORMAT = 1


@dataclass
class Layer:
    """One parameter's setting and state."""

    setting: LayerConfig
    pending_n: torch.Tensor
    """float32 [n], a part of one buffer: gradient + residual within a step, the residual between steps."""
    threshold: Threshold = field(default_factory=Threshold)


@dataclass
class Outgoing:
    """What one rank sends in a step; layers in the model's order, the same on every rank."""

    whole: list[str]
    whole_buffer: torch.Tensor
    """float32, the layers sent whole, one after another; empty if there are none."""
    selected: list[str]
    packed: Packed | None
    """Of the layers of `selected`, one after another; None if there are none."""


class Compressor:
    """The dense layers of one rank. `start` and `finish` alternate; state is kept by parameter name."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], config: DenseConfig) -> None:
        """parameters: by name, in the model's order. Raises `ConfigError` for a pattern that names none of them."""
        self.config, self.step = config, 0
        settings = config.of_layers(list(parameters))
        sizes = [parameter.numel() for parameter in parameters.values()]
        device = next(iter(parameters.values())).device
        pending = torch.split(torch.zeros(sum(sizes), device=device), sizes)
        self._scratch = Scratch(max(sizes), device)
        self.layers = {name: Layer(settings[name], part) for name, part in zip(parameters, pending, strict=True)}

    def start(self, grads: Mapping[str, torch.Tensor]) -> Outgoing:
        """grads: float32 [n] by name."""
        whole: list[str] = []
        selected: list[str] = []
        warm_up = self.step < self.config.warm_up_steps
        for name, layer in self.layers.items():
            if self.config.error_feedback:
                layer.pending_n.add_(grads[name])
            else:
                layer.pending_n.copy_(grads[name])
            if warm_up or (self.step + 1) % layer.setting.every == 0:
                (whole if warm_up or layer.setting.density == 1 else selected).append(name)
        buffer = torch.cat([self.layers[name].pending_n for name in whole] or [self._scratch.floats[:0]])
        for name in whole:
            self.layers[name].pending_n.zero_()
        packed = self._select([self.layers[name] for name in selected]) if selected else None
        self.step += 1
        return Outgoing(whole, buffer, selected, packed)

    def finish(
        self,
        grads: Mapping[str, torch.Tensor],
        outgoing: Outgoing,
        whole_sum: torch.Tensor,
        payloads: Sequence[torch.Tensor],
        ranks: int,
    ) -> None:
        """Writes the mean over the ranks into grads. payloads: of all ranks, this one's too, in the order of the ranks.

        Every rank adds the same numbers in the same order, so all have the same bits.
        """
        _split(whole_sum / ranks, outgoing.whole, grads)
        for name in grads.keys() - set(outgoing.whole):
            grads[name].zero_()
        starts = [0, *accumulate(grads[name].numel() for name in outgoing.selected)]
        for payload in payloads:
            positions_k, values_k = unpack(payload, starts[-1], self.config.values)
            bounds = torch.searchsorted(positions_k, positions_k.new_tensor(starts)).tolist()
            for name, start, (begin, end) in zip(outgoing.selected, starts, pairwise(bounds), strict=False):
                # A payload has no position twice, so this adds all.
                grads[name][positions_k[begin:end] - start] += values_k[begin:end] / ranks

    def residuals(self) -> dict[str, torch.Tensor]:
        """What is held back, between steps: the state itself, float32 [n] by name. Empty without error feedback."""
        return {name: layer.pending_n for name, layer in self.layers.items() if self.config.error_feedback}

    def state_dict(self) -> dict[str, Any]:
        """Tensors (copies) and numbers only: `torch.load(weights_only=True)` reads it."""
        return {
            "format": FORMAT,
            "step": self.step,
            "residuals": {name: residual_n.clone() for name, residual_n in self.residuals().items()},
            "thresholds": {name: dict(vars(layer.threshold)) for name, layer in self.layers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on as the rank that saved it would have. Raises before anything is changed: `InvalidArgument`
        (other parameters, no residuals), `LengthMismatch` (a parameter of another size)."""
        if state.get("format") != FORMAT:
            raise InvalidArgument(f"dense state of format {state.get('format')!r}: this version reads {FORMAT}")
        if set(state["thresholds"]) != set(self.layers):
            differing = sorted(set(state["thresholds"]) ^ set(self.layers))
            raise InvalidArgument(f"the state and the model differ in the parameters {differing}")
        mine, residuals = self.residuals(), state["residuals"]
        if set(residuals) != set(mine):
            raise InvalidArgument("the state was saved with another error_feedback than this config's: use the same")
        for name, residual_n in mine.items():
            if residuals[name].shape != residual_n.shape:
                raise LengthMismatch(
                    f"{name}: {residuals[name].numel()} residuals in the state for {residual_n.numel()} elements"
                )
        for name, residual_n in mine.items():
            residual_n.copy_(residuals[name])
        for name, layer in self.layers.items():
            layer.threshold = Threshold(**state["thresholds"][name])
        self.step = int(state["step"])

    def _select(self, layers: Sequence[Layer]) -> Packed:
        """Takes from each layer what lies above its threshold."""
        positions, values = [], []
        for layer in layers:
            positions.append(layer.threshold.select(layer.pending_n, self._scratch, layer.setting, self.config))
            values.append(layer.pending_n[positions[-1]])
        starts = [0, *accumulate(len(layer.pending_n) for layer in layers)]
        placed = torch.cat([part_k + start for part_k, start in zip(positions, starts, strict=False)])
        packed = pack(placed, torch.cat(values), starts[-1], self.config.values)
        sent = torch.split(packed.values_k, [len(part_k) for part_k in positions])
        for layer, part_k, sent_k, values_k in zip(layers, positions, sent, values, strict=True):
            layer.pending_n[part_k] = values_k - sent_k
        return packed


def _split(flat: torch.Tensor, names: Sequence[str], into: Mapping[str, torch.Tensor]) -> None:
    """Copies consecutive parts of flat into the named tensors."""
    for name, part_n in zip(names, torch.split(flat, [into[name].numel() for name in names]), strict=True):
        into[name].copy_(part_n)
