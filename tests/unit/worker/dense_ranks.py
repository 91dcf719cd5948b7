"""Two ranks with gloo, as two processes that stay for a module's tests; and the programs that they run."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from worker.dense import DctHook, DenseConfig, register

RANKS = 2
PATIENCE_S = 120


class RankFailed(AssertionError):
    """A rank's exception, with its stack."""


class RankPair:
    """run(program, *arguments) -> [program(0, *arguments), program(1, *arguments)], each in its own process."""

    def __init__(self, pipes: list[Connection]) -> None:
        self._pipes = pipes

    def run(self, program: Callable[..., Any], *arguments: Any) -> list[Any]:
        for pipe in self._pipes:
            pipe.send((program, arguments))
        answers = []
        for rank, pipe in enumerate(self._pipes):
            assert pipe.poll(PATIENCE_S), f"rank {rank} says nothing for {PATIENCE_S} s"
            answers.append(pipe.recv())
        failed = [f"rank {rank}:\n{text}" for rank, (ok, text) in enumerate(answers) if not ok]
        if failed:
            raise RankFailed("\n".join(failed))
        return [answer for _, answer in answers]


@contextmanager
def rank_pair(folder: Path) -> Iterator[RankPair]:
    """They meet by a file, so no port can be taken."""
    context = mp.get_context("spawn")
    pipes, processes = [], []
    for rank in range(RANKS):
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=_serve, args=(rank, str(folder / "meeting"), theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        pipes.append(ours)
    try:
        yield RankPair(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _serve(rank: int, meeting: str, pipe: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=RANKS)
    while True:
        try:
            program, arguments = pipe.recv()
        except EOFError:
            break
        try:
            pipe.send((True, program(rank, *arguments)))
        except Exception:  # noqa: BLE001  whatever a program raises is the test's to show
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


@dataclass
class Trainer:
    """A small click model on one rank. The layers are in several buckets."""

    rank: int
    config: DenseConfig | None
    """None trains with plain DDP."""
    lr: float = 0.1
    momentum: float = 0.0
    width: int = 64
    step: int = 0
    hook: DctHook | None = None
    losses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        torch.manual_seed(7)
        widths = [16, self.width, self.width, 1]
        layers = [nn.Sequential(nn.Linear(fan_in, fan_out), nn.Tanh()) for fan_in, fan_out in zip(widths, widths[1:])]
        self.model = DistributedDataParallel(nn.Sequential(*layers[:-1], layers[-1][0]), bucket_cap_mb=0.01)
        if self.config is not None:
            self.hook = register(self.model, self.config)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=self.momentum)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            inputs, labels = planted(seed=2 * self.step + self.rank, samples=64)
            self.optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(self.model(inputs).squeeze(1), labels)
            loss.backward()
            self.optimizer.step()
            self.step += 1

    def parameters(self) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()

    def test_loss(self) -> float:
        inputs, labels = planted(seed=10_000_019, samples=20_000)
        with torch.no_grad():
            logits = self.model.module(inputs).squeeze(1)
        return float(nn.functional.binary_cross_entropy_with_logits(logits, labels))


def planted(seed: int, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [B, 16] of very different scales and clicks [B] by a logit that is not linear in them."""
    source = torch.Generator().manual_seed(seed)
    scales = 2.0 ** -(torch.arange(16) / 4)
    inputs = torch.randn(samples, 16, generator=source) * scales
    normal = inputs / scales
    logits = 1.5 * normal[:, 0] * normal[:, 1] + normal[:, 2:8].sum(1) - normal[:, 8:].sum(1)
    return inputs, (torch.rand(samples, generator=source) < torch.sigmoid(logits)).float()


def trained(rank: int, config: DenseConfig | None, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    """Trains and says how it went."""
    trainer = Trainer(rank, config, **options)
    trainer.train(steps)
    return {
        "parameters": trainer.parameters(),
        "loss": trainer.test_loss(),
        "stats": trainer.hook.stats() if trainer.hook else None,
    }
