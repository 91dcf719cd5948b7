"""One rank's side of a step: which gradients go out now, and what is held back. It does not know of DDP or processes.

    start   gradient + residual -> what is sent, and what would be held back, beside the state
    finish  the mean of what all ranks sent -> gradient; what was held back beside the state becomes the state

    gradient + residual --whole layer?--> all-reduce buffer, residual 0
                        `--not due?-----> residual
                        `--threshold----> payload, residual = what is not in it (fp16's rounding too)

So for each element: sum of what was sent + residual = sum of the gradients. The subtraction rounds nothing (what is
sent of a value is nothing, itself, or its fp16 neighbour). Adding a residual to a gradient rounds as any float32
addition does; with integers below 2^24 it is exact.

A step that is not finished has changed nothing. That is how a NaN of any rank stays out of every rank's residuals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch

from ps.errors import InvalidArgument, LengthMismatch
from ps.nn.dense.config import DenseConfig, LayerConfig
from ps.nn.dense.payload import Packed, pack, unpack
from ps.nn.dense.threshold import Scratch, Threshold

FORMAT = 1


@dataclass
class Layer:
    """One parameter's setting and state."""

    setting: LayerConfig
    residual_n: torch.Tensor
    """float32 [n]: what is held back."""
    pending_n: torch.Tensor
    """float32 [n]: gradient + residual during a step; then what is left of it, which becomes the residual if the step
    is finished. One of two buffers that exchange their roles from step to step."""
    threshold: Threshold = field(default_factory=Threshold)


@dataclass
class Outgoing:
    """What one rank sends in a step. Layers are in the model's order, the same on every rank."""

    whole: list[str]
    whole_buffer: torch.Tensor
    """float32, the layers sent whole, one after another; empty if there are none."""
    selected: list[str]
    packed: Packed | None
    """The selected elements of the layers of `selected`, one layer after another; None if there are no such layers, and
    where `finite` is false."""
    thresholds: dict[str, Threshold]
    """The thresholds of the layers of `selected`, after the step."""
    finite: bool
    """Whether gradients and residuals are neither NaN nor infinite. Where this is false, nothing is selected, and no
    rank may finish the step."""


class Compressor:
    """Selects and holds back the gradients of the dense layers of one rank. Calls of `start` and `finish` alternate;
    state is kept by parameter name."""

    def __init__(self, parameters: Mapping[str, torch.Tensor], config: DenseConfig) -> None:
        """parameters: by name, in the model's order. Raises `ConfigError` for a pattern that names no parameter."""
        self.config, self.step = config, 0
        settings = config.of_layers(list(parameters))
        sizes = [parameter.numel() for parameter in parameters.values()]
        device = next(iter(parameters.values())).device
        self._held, self._pending = (torch.zeros(sum(sizes), device=device) for _ in range(2))
        self._scratch = Scratch(max(sizes), device)
        self.layers = {
            name: Layer(settings[name], residual_n, pending_n)
            for name, residual_n, pending_n in zip(
                parameters, torch.split(self._held, sizes), torch.split(self._pending, sizes), strict=True
            )
        }

    def start(self, grads: Mapping[str, torch.Tensor]) -> Outgoing:
        """Returns what this rank sends of grads: float32 [n] by name. No state changes: a step that is not finished did
        not happen."""
        for name, layer in self.layers.items():
            if self.config.error_feedback:
                torch.add(layer.residual_n, grads[name], out=layer.pending_n)
            else:
                layer.pending_n.copy_(grads[name])
        finite = all_finite(self._pending)
        warm_up = self.step < self.config.warm_up_steps
        due = [n for n, layer in self.layers.items() if warm_up or (self.step + 1) % layer.setting.every == 0]
        whole = [name for name in due if warm_up or self.layers[name].setting.density == 1]
        selected = [name for name in due if name not in whole]
        buffer = torch.cat([self.layers[name].pending_n for name in whole] or [self._scratch.floats[:0]])
        for name in whole:
            self.layers[name].pending_n.zero_()
        thresholds = {name: replace(self.layers[name].threshold) for name in selected}
        packed = self._select(thresholds) if selected and finite else None
        return Outgoing(whole, buffer, selected, packed, thresholds, finite)

    def finish(
        self,
        grads: Mapping[str, torch.Tensor],
        outgoing: Outgoing,
        whole_sum: torch.Tensor,
        payloads: Sequence[torch.Tensor],
        ranks: int,
    ) -> None:
        """Writes the mean over the ranks into grads, and keeps what is held back. payloads: those of all ranks, this
        one included, in the order of the ranks.

        Every rank adds the same numbers in the same order, so all have the same bits.
        """
        self._held, self._pending = self._pending, self._held
        for name, layer in self.layers.items():
            layer.residual_n, layer.pending_n = layer.pending_n, layer.residual_n
            layer.threshold = outgoing.thresholds.get(name, layer.threshold)
        self.step += 1
        split_into(whole_sum / ranks, outgoing.whole, grads)
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
        """Returns what is held back between two steps: the state itself, float32 [n] by name. It is empty without error
        feedback."""
        return {name: layer.residual_n for name, layer in self.layers.items() if self.config.error_feedback}

    def state_dict(self) -> dict[str, Any]:
        """Returns copies of the tensors, and numbers, so that `torch.load(weights_only=True)` reads it."""
        return {
            "format": FORMAT,
            "step": self.step,
            "residuals": {name: residual_n.clone() for name, residual_n in self.residuals().items()},
            "thresholds": {name: dict(vars(layer.threshold)) for name, layer in self.layers.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up a saved state and goes on as the rank that saved it would have. Raises before anything has changed:
        `InvalidArgument` (other parameters, no residuals, some that are not finite), `LengthMismatch` (a parameter of
        another size)."""
        if state.get("format") != FORMAT:
            raise InvalidArgument(f"dense state of format {state.get('format')!r}: this version reads {FORMAT}")
        if set(state["thresholds"]) != set(self.layers):
            differing = sorted(set(state["thresholds"]) ^ set(self.layers))
            raise InvalidArgument(
                f"the state and the model differ in the parameters {differing}: load a state of this model"
            )
        mine, residuals = self.residuals(), state["residuals"]
        if set(residuals) != set(mine):
            raise InvalidArgument("the state was saved with another error_feedback than this config's: use the same")
        for name, residual_n in mine.items():
            if residuals[name].shape != residual_n.shape:
                raise LengthMismatch(
                    f"{name}: {residuals[name].numel()} residuals in the state for {residual_n.numel()} elements"
                )
            if not all_finite(residuals[name]):
                raise InvalidArgument(
                    f"{name}: the state holds back NaN or infinity, which every later gradient would become: load an "
                    "earlier one, or none, which loses what was held back"
                )
        for name, residual_n in mine.items():
            residual_n.copy_(residuals[name])
        for name, layer in self.layers.items():
            layer.threshold = Threshold(**state["thresholds"][name])
        self.step = int(state["step"])

    def _select(self, thresholds: Mapping[str, Threshold]) -> Packed:
        """Takes the elements above its threshold from each of these layers; the threshold then follows what it let
        pass."""
        positions, values = [], []
        layers = [self.layers[name] for name in thresholds]
        for layer, threshold in zip(layers, thresholds.values(), strict=True):
            positions.append(threshold.select(layer.pending_n, self._scratch, layer.setting, self.config))
            values.append(layer.pending_n[positions[-1]])
        starts = [0, *accumulate(len(layer.pending_n) for layer in layers)]
        placed = torch.cat([part_k + start for part_k, start in zip(positions, starts, strict=False)])
        packed = pack(placed, torch.cat(values), starts[-1], self.config.values)
        sent = torch.split(packed.values_k, [len(part_k) for part_k in positions])
        for layer, part_k, sent_k, values_k in zip(layers, positions, sent, values, strict=True):
            layer.pending_n[part_k] = values_k - sent_k
        return packed


def all_finite(values_n: torch.Tensor) -> bool:
    """Returns whether no element is NaN or infinite. One pass does, because NaN and infinity stay in a sum; a sum that
    overflows asks for a second pass."""
    return bool(values_n.sum().isfinite()) or bool(values_n.isfinite().all())


def split_into(flat: torch.Tensor, names: Sequence[str], into: Mapping[str, torch.Tensor]) -> None:
    """Copies consecutive parts of flat into the named tensors."""
    for name, part_n in zip(names, torch.split(flat, [into[name].numel() for name in names]), strict=True):
        into[name].copy_(part_n)
