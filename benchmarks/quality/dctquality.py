"""The accuracy that compressed communication costs: AUC against the same model with whole gradients in fp32.

A DLRM learns in one pass over each of five streams (`benchmarks.problems`), three of which come in bursts, and over
planted samples with long bags, which shards may pool; real data that is not on this machine is passed over. The figures
are of predictions made before training on them, in the later part of the stream. Seeds are paired: a case begins with
the values that its dense twin begins with, and sees the same clicks. `seed_noise` is what a difference is where nothing
is compressed and only the first values are others: the root of the mean square over the seeds.
`benchmarks.quality.dctplot` draws the figures.

The dense part of several trainers is not here: `tests/convergence` and `ps.nn.dense` are about that.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import ps
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from benchmarks.problems.stream import Stream
from benchmarks.problems.streams import streams
from benchmarks.quality.dctbags import PlantedBags
from ps.nn import Prefetcher, Relaxed, TopK
from ps.nn.feature import Pooled
from ps.nn.sparsify.sparsifiers import Sparsify, Threshold
from worker.train.trainer import Trainer

DIM = 16
DENSE_LR = 0.02
BOUND = 1e-1 * DIM**-0.5
"""The bound of the uniform distribution that rows begin with, as in `worker.train`."""
OTHER_VALUES = 1000
"""A number that is added to a seed to get the same data with other first values."""


@dataclass(frozen=True)
class Case:
    """What is compressed, and how."""

    sparsify: Sparsify | None = None
    wire_dtype: Any = "fp32"
    pooled: Pooled = "trainer"
    mask_sums: Sparsify | None = None


def unbounded(percent: int, **options: Any) -> TopK:
    """Selects so many percent, and sends nothing merely because it was held for long."""
    return TopK(percent / 100, hold=None, **options)


DENSITIES = (1, 5, 10, 20)
"""Percent of the rows of a step that are selected, among those that are not new."""
NO_FEEDBACK = (1, 5, 20)
RELAXED = Relaxed(every=8)
DEFAULT = "default"
CASES = (
    {DEFAULT: Case(TopK()), f"{DEFAULT}_int8": Case(TopK(), wire_dtype="int8")}
    | {f"topk_{percent}": Case(unbounded(percent)) for percent in DENSITIES}
    | {f"topk_{percent}_no_feedback": Case(unbounded(percent, error_feedback=False)) for percent in NO_FEEDBACK}
    | {
        "topk_5_warm_up": Case(unbounded(5, warm_up=100)),
        "topk_5_elements": Case(unbounded(5, by="elements")),
        "relaxed": Case(Threshold(0.0, relaxed=RELAXED)),
        "by_importance": Case(wire_dtype=ps.ByImportance()),
        "fp16": Case(wire_dtype="fp16"),
        "int8": Case(wire_dtype="int8"),
        "topk_10_fp16": Case(unbounded(10), wire_dtype="fp16"),
        "topk_10_int8": Case(unbounded(10), wire_dtype="int8"),
    }
)
"""The cases. In `topk_...` whatever is small is held, however long."""
FEW = {name: CASES[name] for name in (DEFAULT, f"{DEFAULT}_int8", "topk_5", "topk_10", "topk_20")}
IN_FULL = ("synthetic", "flights")
"""Streams with all cases; the others have a few."""
MASKED = {percent: TopK(percent / 100, by="elements") for percent in (20, 50)}
"""How sums are masked, by the percent of their elements that are sent."""
POOLED = (
    {DEFAULT: Case(TopK())}
    | {f"topk_{percent}": Case(unbounded(percent)) for percent in (2, 10)}
    | {"pooled": Case(pooled="shard")}
    | {f"pooled_topk_{percent}": Case(unbounded(percent), pooled="shard") for percent in (2, 10)}
    | {f"pooled_masked_{percent}": Case(pooled="shard", mask_sums=mask) for percent, mask in MASKED.items()}
    | {"pooled_both": Case(unbounded(10), pooled="shard", mask_sums=MASKED[20])}
)
"""Cases on long bags. The first two are pushed by rows, for comparison; `pooled_both` compresses pushes and sums."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one pass."""

    auc: float
    log_loss: float
    moved: dict[str, int]
    """Bytes of the messages of pushes and of pulls, both ways, and of a whole step, prepares too, since bags are a part
    of ids."""


def run(report: Report, sizes: Sizes) -> None:
    """Runs each case on each stream, with `dctquality_seeds` seeds."""
    torch.set_num_threads(1)
    seeds = range(sizes.dctquality_seeds)
    for problem in streams("dctquality", sizes):
        compare(report, problem, seeds, CASES if problem.name in IN_FULL else FEW)
    compare(report, PlantedBags(sizes.dctquality_bags, sizes.dctquality_bag_ids), seeds, POOLED)


def compare(report: Report, problem: Stream, seeds: Sequence[int], cases: Mapping[str, Case]) -> None:
    """Runs these cases and what they are compared with."""
    dense = [train(problem, Case(), seed, seed) for seed in seeds]
    others = [train(problem, Case(), seed, seed + OTHER_VALUES) for seed in seeds]
    squares = [(other.auc - one.auc) ** 2 for other, one in zip(others, dense, strict=True)]
    _report(report, f"{problem.name}_dense", dense)
    report.add(f"{problem.name}_dense", "seed_noise", math.sqrt(statistics.mean(squares)))
    for name, case in cases.items():
        found = [train(problem, case, seed, seed) for seed in seeds]
        _report(report, f"{problem.name}_{name}", found)
        differences = [mine.auc - theirs.auc for mine, theirs in zip(found, dense, strict=True)]
        report.add(f"{problem.name}_{name}", "auc_difference", statistics.mean(differences))
        report.add(f"{problem.name}_{name}", "auc_difference_least", min(differences))
        report.add(f"{problem.name}_{name}", "auc_difference_most", max(differences))
        for kind in ("push", "pull", "step"):
            factors = [theirs.moved[kind] / mine.moved[kind] for mine, theirs in zip(found, dense, strict=True)]
            report.add(f"{problem.name}_{name}", f"{kind}_bytes_saved_factor", statistics.mean(factors))


def train(problem: Stream, case: Case, data_seed: int, seed: int) -> Outcome:
    """Trains one pass over the stream. `seed` decides the first values of rows and of the dense layers."""
    begun_s = time.monotonic()
    source = problem.source(data_seed)
    tables = [
        ps.TableConfig(
            name=name,
            dim=DIM,
            optimizer=ps.Adagrad(lr=problem.row_lr),
            initializer=ps.Uniform(low=-BOUND, high=BOUND),
            seed=seed,
        )
        for name in dict.fromkeys(feature.table for feature in source.features)
    ]
    with ps.connect("inproc:", wire_dtype=case.wire_dtype) as client:
        trainer = Trainer(
            client,
            source,
            tables,
            DENSE_LR,
            seed,
            sparsify=case.sparsify,
            mask_sums=case.mask_sums,
            pooled=case.pooled,
        )
        for batch in Prefetcher(source.batches(problem.batch), trainer.embeddings, 1):
            trainer.step(batch)
        moved = {method: _moved(client, method) for method in ("Prepare", "Pull", "Push")}
    window = problem.window()
    auc, log_loss = trainer.metrics.auc(window), trainer.metrics.log_loss(window)
    found = Outcome(auc, log_loss, {"push": moved["Push"], "pull": moved["Pull"], "step": sum(moved.values())})
    seconds = time.monotonic() - begun_s
    print(f"{problem.name} {case} seeds {data_seed} {seed}: {found} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return found


def _moved(client: ps.Client, method: str) -> int:
    traffic = client.traffic()
    return int(traffic["sent_bytes"][method]) + int(traffic["received_bytes"].get(method, 0))


def _report(report: Report, case: str, found: Sequence[Outcome]) -> None:
    report.add(case, "auc", statistics.mean(outcome.auc for outcome in found))
    report.add(case, "log_loss", statistics.mean(outcome.log_loss for outcome in found))
