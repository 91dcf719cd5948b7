"""A trainer small enough for tests, on a planted problem."""

from __future__ import annotations

import io
from itertools import pairwise

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ps.nn.dense import DenseConfig, register


class Trainer:
    """A small click model on one rank, its layers in several buckets. config None: plain DDP."""

    def __init__(
        self, rank: int, config: DenseConfig | None, *, lr: float = 0.3, momentum: float = 0.0, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        widths = [16, 64, 64, 1]
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.Tanh()]
        self.model = DistributedDataParallel(nn.Sequential(*layers[:-1]), bucket_cap_mb=0.01)
        self.hook = register(self.model, config) if config else None
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=momentum)
        self.rank, self.seed, self.step = rank, seed, 0

    def train(self, steps: int) -> None:
        for _ in range(steps):
            inputs, labels = planted(1_000_003 * self.seed + 2 * self.step + self.rank, samples=64)
            self.optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(self.model(inputs).squeeze(1), labels).backward()
            self.optimizer.step()
            self.step += 1

    def parameters(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()

    def test_loss(self) -> float:
        inputs, labels = planted(999_999_937, samples=20_000)
        with torch.no_grad():
            logits = self.model.module(inputs).squeeze(1)
        return float(nn.functional.binary_cross_entropy_with_logits(logits, labels))

    def save(self) -> bytes:
        assert self.hook
        file = io.BytesIO()
        parts = {"model": self.model.module, "optimizer": self.optimizer, "dense": self.hook}
        torch.save({name: part.state_dict() for name, part in parts.items()}, file)
        return file.getvalue()

    def load(self, checkpoint: bytes, step: int) -> None:
        assert self.hook
        state = torch.load(io.BytesIO(checkpoint), weights_only=True)
        self.model.module.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.hook.load_state_dict(state["dense"])
        self.step = step


def planted(seed: int, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [B, 16] of very different scales and clicks [B] by a logit that is not linear in them."""
    source = torch.Generator().manual_seed(seed)
    normal = torch.randn(samples, 16, generator=source)
    logits = 1.5 * normal[:, 0] * normal[:, 1] + normal[:, 2:8].sum(1) - normal[:, 8:].sum(1)
    clicks = torch.rand(samples, generator=source) < torch.sigmoid(logits)
    return normal * 2.0 ** -(torch.arange(16) / 4), clicks.float()
