"""The accuracy that it costs to make large tables tensor trains, beside other uses of the same bytes.

A DLRM learns in one pass over each stream; the figures are of predictions made before training on them, in the later
part of it. Seeds are paired: a case begins with the values that its whole twin begins with, and sees the same clicks.
`seed_noise` is what a difference is where every id has a row of its own and only the first values are others: the root
of the mean square over the seeds. `benchmarks.tensor_train.plot` draws the figures.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import ps
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.tensor_train.cases import DIM, WAYS, Projected, Way
from benchmarks.tensor_train.problems import Problem, floats, problems
from ps.nn.prefetch import Prefetcher
from worker.train.trainer import Trainer

DENSE_LR = 0.02
HALF_LIFE_PUSHES = 640
"""The half-life in pushes: the default is for streams a hundred times as long."""
BOUND = 1e-1 * DIM**-0.5
"""The bound of the uniform distribution that rows begin with, as in `worker.train`."""
OTHER_VALUES = 1000
"""A number that is added to a seed to get the same data with other first values."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one pass."""

    auc: float
    log_loss: float
    floats: float
    """Floats that the values of the large tables take at the end."""


def run(report: Report, sizes: Sizes) -> None:
    """Runs each case on each stream, with `ttquality_seeds` seeds."""
    torch.set_num_threads(1)
    seeds = range(sizes.ttquality_seeds)
    for problem in problems(sizes):
        whole = [train(problem, Way(), seed, seed) for seed in seeds]
        others = [train(problem, Way(), seed, seed + OTHER_VALUES) for seed in seeds]
        squares = [(other.auc - one.auc) ** 2 for other, one in zip(others, whole, strict=True)]
        _report(report, problem, "whole", whole, whole)
        report.add(f"{problem.name}_whole", "seed_noise", math.sqrt(statistics.mean(squares)))
        for name, way in WAYS.items():
            _report(report, problem, name, [train(problem, way, seed, seed) for seed in seeds], whole)


def train(problem: Problem, way: Way, data_seed: int, seed: int) -> Outcome:
    """Trains one pass over the stream. `seed` decides the first values of rows and of the dense layers."""
    begun_s = time.monotonic()
    source = way.source(problem, problem.source(data_seed))
    dims = {name: way.dim(large) for name, large in problem.large.items()}
    with ps.connect("inproc:") as client:
        trainer = Trainer(client, source, _tables(problem, way, seed), DENSE_LR, seed)
        if min(dims.values()) < DIM:
            trainer.model = projected = Projected(trainer.dense, source, dims)
            trainer.optimizer.add_param_group({"params": list(projected.matrices.parameters())})
        for batch in Prefetcher(source.batches(problem.batch), trainer.embeddings, 1):
            trainer.step(batch)
        tables = client.stats()["shards"][0]["tables"]
    window = problem.window()
    taken = sum(way.floats(large, tables[name]) for name, large in problem.large.items())
    found = Outcome(trainer.metrics.auc(window), trainer.metrics.log_loss(window), taken)
    seconds = time.monotonic() - begun_s
    print(
        f"# {problem.name} {way} of seeds {data_seed} {seed}: {found} in {seconds:.0f} s", file=sys.stderr, flush=True
    )
    return found


def _report(report: Report, problem: Problem, name: str, found: Sequence[Outcome], whole: Sequence[Outcome]) -> None:
    case = f"{problem.name}_{name}"
    report.add(case, "auc", statistics.mean(outcome.auc for outcome in found))
    report.add(case, "log_loss", statistics.mean(outcome.log_loss for outcome in found))
    report.add(case, "compression", statistics.mean(floats(problem, DIM) / outcome.floats for outcome in found))
    if name != "whole":
        differences = [mine.auc - theirs.auc for mine, theirs in zip(found, whole, strict=True)]
        report.add(case, "auc_difference", statistics.mean(differences))
        report.add(case, "auc_difference_least", min(differences))
        report.add(case, "auc_difference_most", max(differences))


def _tables(problem: Problem, way: Way, seed: int) -> list[ps.TableConfig]:
    common: dict[str, Any] = {
        "dim": DIM,
        "optimizer": ps.Adagrad(lr=problem.row_lr),
        "initializer": ps.Uniform(low=-BOUND, high=BOUND),
        "half_life_pushes": HALF_LIFE_PUSHES,
        "seed": seed,
    }
    small = [ps.TableConfig(name=name, **common) for name in problem.small]
    large = [ps.TableConfig(name=name, **(common | way.table(table))) for name, table in problem.large.items()]
    return small + large
