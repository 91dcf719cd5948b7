"""One rank's side of a step: which gradients go out now, and what is held back. It knows nothing of DDP or processes.

    gradient + residual --whole layer?--> all-reduce buffer, residual 0
                        `--not due?-----> residual, gradient 0
                        `--threshold----> payload, residual = what is not in it (fp16's rounding too)

So for each element: sum of what was sent + residual = sum of the gradients. The subtraction rounds nothing (what is
sent of a value is nothing, itself, or its fp16 neighbour). Adding a residual to a gradient rounds as any float32
addition does; with integers below 2^24 it is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ps.errors import InvalidArgument, LengthMismatch
from worker.dense.config import DenseConfig, LayerConfig
from worker.dense.payload import Packed, pack, unpack
from worker.dense.threshold import Threshold

FORMAT = 1


@dataclass
class Layer:
    """One parameter's setting and state."""

    setting: LayerConfig
    residual_n: torch.Tensor | None
    """float32 [n], held back; None without error feedback."""
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
        self.layers = {
            name: Layer(settings[name], parameter.new_zeros(parameter.numel()) if config.error_feedback else None)
            for name, parameter in parameters.items()
        }

    def start(self, grads: Mapping[str, torch.Tensor]) -> Outgoing:
        """grads: float32 [n] by name, which are overwritten: `finish` puts the mean there."""
        whole, selected = [], []
        for name, layer in self.layers.items():
            if layer.residual_n is not None:
                grads[name].add_(layer.residual_n)
            if self.step >= self.config.warm_up_steps and (self.step + 1) % layer.setting.every:
                self._hold(layer, grads[name])
            elif self.step < self.config.warm_up_steps or layer.setting.density == 1:
                whole.append(name)
            else:
                selected.append(name)
        packed = self._select(selected, grads) if selected else None
        empty = torch.empty(0, device=next(iter(grads.values())).device)
        buffer = torch.cat([grads[name] for name in whole]) if whole else empty
        for layer in (self.layers[name] for name in whole):
            if layer.residual_n is not None:
                layer.residual_n.zero_()
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
        if outgoing.selected:
            total_n = whole_sum.new_zeros(sum(grads[name].numel() for name in outgoing.selected))
            for payload in payloads:
                positions_k, values_k = unpack(payload, len(total_n), self.config.values)
                total_n[positions_k] += values_k  # no position twice in one payload
            _split(total_n / ranks, outgoing.selected, grads)

    def state_dict(self) -> dict[str, Any]:
        """Tensors (copies) and numbers only: `torch.load(weights_only=True)` reads it."""
        return {
            "format": FORMAT,
            "step": self.step,
            "residuals": {
                name: layer.residual_n.clone() for name, layer in self.layers.items() if layer.residual_n is not None
            },
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
        feedback = {name: layer.residual_n for name, layer in self.layers.items() if layer.residual_n is not None}
        residuals = state["residuals"]
        if set(residuals) != set(feedback):
            raise InvalidArgument("the state was saved with another error_feedback than this config's: use the same")
        for name, residual_n in feedback.items():
            if residuals[name].shape != residual_n.shape:
                raise LengthMismatch(
                    f"{name}: {residuals[name].numel()} residuals in the state for {residual_n.numel()} elements"
                )
        for name, residual_n in feedback.items():
            residual_n.copy_(residuals[name])
        for name, layer in self.layers.items():
            layer.threshold = Threshold(**state["thresholds"][name])
        self.step = int(state["step"])

    def _hold(self, layer: Layer, grads_n: torch.Tensor) -> None:
        assert layer.residual_n is not None, "DenseConfig refuses relaxed layers without error feedback"
        layer.residual_n.copy_(grads_n)
        grads_n.zero_()

    def _select(self, names: Sequence[str], grads: Mapping[str, torch.Tensor]) -> Packed:
        layers = [self.layers[name] for name in names]
        masks = [
            layer.threshold.select(grads[name], layer.setting, self.config, self.step)
            for name, layer in zip(names, layers, strict=True)
        ]
        grads_n = torch.cat([grads[name] for name in names])
        positions_k = torch.cat(masks).nonzero().squeeze(1)
        packed = pack(positions_k, grads_n[positions_k], len(grads_n), self.config.values)
        if self.config.error_feedback:
            grads_n[positions_k] -= packed.values_k
            _split(grads_n, names, {name: layer.residual_n for name, layer in self.layers.items()})
        return packed


def _split(flat: torch.Tensor, names: Sequence[str], into: Mapping[str, torch.Tensor | None]) -> None:
    """Copies consecutive parts of flat into the named tensors."""
    start = 0
    for name in names:
        target = into[name]
        assert target is not None
        target.copy_(flat[start : start + target.numel()])
        start += target.numel()
