"""What it costs in accuracy to make the large tables tensor trains: AUC and log loss against the same model without.

A DLRM learns in one pass over planted clicks with the cardinalities of Criteo, and over a year of flights; the figures
are of predictions made before training on them, in the later part of the stream. A case's loss is taken seed by seed.
`benchmarks.ttplot` draws the figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

import ps
from benchmarks.measure import Report, Sizes
from benchmarks.ttproblems import LargeTable, Problem, floats, problems
from worker.prefetch import Prefetcher
from worker.trainer import Trainer

BATCH, DIM = 1024, 16
DENSE_LR = 0.02
CORE_LR = {8: 0.04, 16: 0.02, 32: 0.01, 64: 0.01}
"""Of cores, Adagrad's, by rank: the best of several on the planted clicks, on a seed that no figure is from. Row-wise
Adagrad was no better at its best of seven. More ranks add up more steps in a row, so each must be smaller."""
NEXT_TO_NOTHING = 1e-30
HALF_LIFE_PUSHES = 640
"""The default is for streams a hundred times as long."""
BOUND = 1e-1 * DIM**-0.5
"""Rows begin uniform within it, as in `worker.train`."""

Initializer = Literal["approximate_uniform", "gaussian", "uniform"]


@dataclass(frozen=True)
class Case:
    """How the large tables are made."""

    rank: int
    hot: float = 1.0
    """Times the problem's `hot_share`."""
    initializer: Initializer = "approximate_uniform"
    variance: Literal["as_rows", "paper"] = "as_rows"
    """Of a core value: that of rows in other tables, or 1 / (3 rows)."""
    training: Literal["trained", "untrained"] = "trained"
    """Whether cores learn."""


RANKS = (8, 16, 32, 64)
CASES = (
    {f"rank{rank}": Case(rank) for rank in RANKS}
    | {f"rank{rank}_no_cache": Case(rank, hot=0.0) for rank in RANKS}
    | {
        "rank16_gaussian_no_cache": Case(16, hot=0.0, initializer="gaussian"),
        "rank16_uniform_no_cache": Case(16, hot=0.0, initializer="uniform"),
        "rank16_paper_variance_no_cache": Case(16, hot=0.0, variance="paper"),
        "rank8_tenth_of_hot": Case(8, hot=0.1),
        "rank8_untrained_no_cache": Case(8, hot=0.0, training="untrained"),
    }
)
"""How cores begin is compared where nothing else hides it. Untrained cores tell how much there is to lose: the large
tables then know nothing."""


@dataclass(frozen=True)
class Outcome:
    """Of one pass."""

    auc: float
    log_loss: float
    floats: int
    """That values take at the end: cores, and rows outside of them. Every id of a table without cores counts."""


def run(report: Report, sizes: Sizes) -> None:
    """Each case on each stream, with `ttquality_seeds` seeds."""
    torch.set_num_threads(1)
    for problem in problems(sizes):
        dense = [train(problem, None, seed) for seed in range(sizes.ttquality_seeds)]
        _report(report, f"{problem.name}_dense", problem, dense)
        for name, case in CASES.items():
            found = [train(problem, case, seed) for seed in range(sizes.ttquality_seeds)]
            _report(report, f"{problem.name}_{name}", problem, found)
            losses = [100 * (1 - mine.auc / theirs.auc) for mine, theirs in zip(found, dense, strict=True)]
            report.add(f"{problem.name}_{name}", "auc_loss_percent", statistics.mean(losses))
            report.add(f"{problem.name}_{name}", "auc_loss_percent_least", min(losses))
            report.add(f"{problem.name}_{name}", "auc_loss_percent_most", max(losses))


def train(problem: Problem, case: Case | None, seed: int) -> Outcome:
    """One pass over the stream. None: no table has cores."""
    source = problem.source(seed)
    with ps.connect("inproc:") as client:
        trainer = Trainer(client, source, _tables(problem, case, seed), DENSE_LR, seed)
        for batch in Prefetcher(source.batches(BATCH), trainer.embeddings, 1):
            trainer.step(batch)
        tables = client.stats()["shards"][0]["tables"]
    window = problem.window()
    return Outcome(trainer.metrics.auc(window), trainer.metrics.log_loss(window), _floats(problem, tables))


def _report(report: Report, case: str, problem: Problem, found: list[Outcome]) -> None:
    report.add(case, "auc", statistics.mean(outcome.auc for outcome in found))
    report.add(case, "log_loss", statistics.mean(outcome.log_loss for outcome in found))
    report.add(case, "compression", statistics.mean(floats(problem, DIM) / outcome.floats for outcome in found))


def _tables(problem: Problem, case: Case | None, seed: int) -> list[ps.TableConfig]:
    common: dict[str, Any] = {
        "dim": DIM,
        "optimizer": ps.Adagrad(lr=problem.row_lr),
        "initializer": ps.Uniform(low=-BOUND, high=BOUND),
        "half_life_pushes": HALF_LIFE_PUSHES,
        "seed": seed,
    }
    small = [ps.TableConfig(name=name, **common) for name in problem.small]
    if case is None:
        return small + [ps.TableConfig(name=name, **common) for name in problem.large]
    return small + [
        ps.TableConfig(name=name, **(common | _compressed(problem, large, case)))
        for name, large in problem.large.items()
    ]


def _compressed(problem: Problem, large: LargeTable, case: Case) -> dict[str, Any]:
    """What is different in a table with cores."""
    cold = ps.TensorTrain(
        rows=large.rows,
        ranks=case.rank,
        index=large.index,
        initializer=case.initializer,
        optimizer=ps.Adagrad(lr=CORE_LR[case.rank] if case.training == "trained" else NEXT_TO_NOTHING),
        hot_rows=round(case.hot * problem.hot_share * large.ids),
    )
    if case.variance == "as_rows":
        return {"cold": cold}
    bound = large.rows**-0.5
    return {"cold": cold, "initializer": ps.Uniform(low=-bound, high=bound)}


def _floats(problem: Problem, tables: Mapping[str, Any]) -> int:
    total = DIM * sum(problem.small.values())
    for name, large in problem.large.items():
        cores = tables[name]["tensor_train"]
        own_rows = large.ids if cores is None else sum(tables[name]["rows"].values())
        total += DIM * own_rows + (0 if cores is None else cores["parameters"])
    return total
