"""What the ranks of test_dense_ddp.py run, each in its own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from dense_trainer import Trainer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ps.errors import PsError
from ps.nn.dense import DctHook, DenseConfig, LayerConfig, register


def trained(rank: int, config: DenseConfig | None, steps: int, options: dict[str, Any]) -> dict[str, Any]:
    trainer = Trainer(rank, config, **options)
    trainer.train(steps)
    stats = trainer.hook.stats() if trainer.hook else None
    return {"parameters": trainer.parameters(), "loss": trainer.test_loss(), "stats": stats}


def interrupted(rank: int, config: DenseConfig, before: int, after: int) -> dict[str, Any]:
    """The same steps twice, the second time in two trainers with a checkpoint between them."""
    whole = Trainer(rank, config, momentum=0.9)
    whole.train(before + after)
    first = Trainer(rank, config, momentum=0.9)
    first.train(before)
    second = Trainer(rank, config, momentum=0.9, seed=5)
    second.seed = 0
    second.load(first.save(), before)
    second.train(after)
    assert whole.hook
    assert second.hook
    return {
        "parameters": (whole.parameters(), second.parameters()),
        "stats": (whole.hook.stats(), second.hook.stats()),
    }


def integers(rank: int, config: DenseConfig, steps: int, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Gradients that are whole numbers, applied by SGD(lr=1). Every other step sends after two backwards only."""
    tower = nn.Sequential(nn.Linear(30, 1, bias=False), nn.Linear(1, 50, bias=False))
    for parameter in tower.parameters():
        nn.init.zeros_(parameter)
    model = DistributedDataParallel(Summed(tower), bucket_cap_mb=0.0001, **options)
    hook = register(model, config)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    source, truth = torch.Generator().manual_seed(rank), torch.zeros(80)
    for step in range(steps):
        optimizer.zero_grad()
        for last in [False, True] if step % 2 else [True]:
            weights = torch.randint(-100, 101, (80,), generator=source).float()
            truth += weights
            if last:
                model(weights).backward()
            else:
                with model.no_sync():
                    model(weights).backward()
        optimizer.step()
    held = torch.cat(list(hook.state_dict()["residuals"].values()))
    report = {"truth": truth, "applied": -vector(model), "residual": held}
    hook.flush()
    optimizer.step()
    return {**report, "flushed": -vector(model), "left": torch.cat(list(hook.state_dict()["residuals"].values()))}


class Summed(nn.Module):
    """Its gradient is its input."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        return nn.utils.parameters_to_vector(self.tower.parameters()) @ weights


def vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def bytes_of_collectives(rank: int, config: DenseConfig, steps: int) -> tuple[int, int, Any]:
    """Bytes of the tensors that went into all-gathers and all-reduces, and what the hook counted."""
    with watched("all_gather", 1) as gathered, watched("all_reduce", 0) as reduced:
        trainer = Trainer(rank, config)
        gathered.clear()
        trainer.train(steps)
    assert trainer.hook
    return sum(gathered), sum(reduced), trainer.hook.stats()


@contextmanager
def watched(name: str, argument: int) -> Iterator[list[int]]:
    """The real collective, and the bytes of what it was given."""
    real, seen = getattr(dist, name), []

    def watching(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments[argument].nbytes)
        return real(*arguments, **options)

    setattr(dist, name, watching)
    try:
        yield seen
    finally:
        setattr(dist, name, real)


def gradients_by_layer(rank: int, config: DenseConfig, steps: int) -> list[dict[str, int]]:
    """Elements other than zero in the gradients that the optimizer gets, step by step."""
    trainer, found = Trainer(rank, config), []
    for _ in range(steps):
        trainer.train(1)
        named = trainer.model.module.named_parameters()
        found.append({name: int(parameter.grad.count_nonzero()) for name, parameter in named})
    return found


def refused(rank: int, case: str) -> str:
    """What a rank is told."""
    try:
        CASES[case](rank)
    except PsError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _other_rank(rank: int) -> None:
    hook = Trainer(rank, DenseConfig()).hook
    assert hook
    hook.load_state_dict({**hook.state_dict(), "rank": 0})


def _other_step(rank: int) -> None:
    trainer = Trainer(rank, DenseConfig())
    assert trainer.hook
    early = trainer.hook.state_dict()
    trainer.train(1)
    trainer.hook.load_state_dict(early if rank else trainer.hook.state_dict())


def _half(rank: int) -> DctHook:
    return register(DistributedDataParallel(nn.Linear(2, 2).half()), DenseConfig())


def _unused(rank: int) -> DctHook:
    return register(DistributedDataParallel(nn.Linear(2, 2), find_unused_parameters=True), DenseConfig())


def with_a_step_that_is_not_finite(
    rank: int, config: DenseConfig | None, layer: str, what: dict[int, float]
) -> list[dict[str, Any]]:
    """Eight steps with one in between whose gradients, in one element of one layer, are what[rank]; it is skipped where
    they are not finite, as a trainer does. Then eight steps without it."""
    answers = []
    for odd in (3, None):
        trainer = Trainer(rank, config, momentum=0.9)
        weights = dict(trainer.model.module.named_parameters())
        found = {}
        for step in range(8):
            if step == odd:
                before = trainer.hook and trainer.hook.state_dict()
                trainer.optimizer.zero_grad()
                value = torch.tensor(what[rank])
                (trainer.model(torch.zeros(1, 16)).sum() * 0 + weights[layer].flatten()[0] * value).backward()
                found["gradients"] = torch.cat([p.grad.flatten() for p in weights.values()])
                after = trainer.hook and trainer.hook.state_dict()
                found["touched"] = [str(before[k]) != str(after[k]) for k in before if k != "stats"] if before else []
            trainer.train(1)
        found["parameters"] = trainer.parameters()
        if trainer.hook:
            found["held"] = torch.cat(list(trainer.hook.state_dict()["residuals"].values()))
            found["stats"] = trainer.hook.stats()
        answers.append(found)
    return answers


CASES: dict[str, Any] = {
    "config": lambda rank: Trainer(rank, DenseConfig(density=0.01 * (1 + rank))),
    "pattern": lambda rank: Trainer(rank, DenseConfig(layers={"deep.*": LayerConfig(0.1)})),
    "rank": _other_rank,
    "step": _other_step,
    "dtype": _half,
    "unused": _unused,
}
