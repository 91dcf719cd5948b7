"""Measures what a client does to a batch: it removes duplicates, and sums gradients by id."""

from __future__ import annotations

import numpy as np

from benchmarks.harness.data import batches, generator, gradients, random_ids, skewed
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids
from ps.kernels.index.unique import has_duplicates, segment_sum, unique


def run(report: Report, sizes: Sizes) -> None:
    """Measures batches without a duplicate, and batches with the skew of real tables."""
    rng = generator()
    ids_N = random_ids(rng, sizes.rows)
    given = {
        "random": [batches(rng, ids_N, sizes.batch)(i) for i in range(4)],
        "skewed": [skewed(rng, ids_N, sizes.batch) for _ in range(4)],
    }
    grads_ND = gradients(rng, sizes.batch, sizes.dim)
    for case, ids in given.items():
        _case(report, sizes, case, ids, grads_ND)


def _case(report: Report, sizes: Sizes, case: str, ids: list[Ids], grads_ND: np.ndarray) -> None:
    def batch(turn: int) -> Ids:
        return ids[turn % len(ids)]

    deduplicated = [unique(ids_N) for ids_N in ids]
    longest = max(len(unique_U) for unique_U, _, _ in deduplicated)
    out_UD = np.ones((longest, sizes.dim), np.float32)
    report.add(case, "unique_share", [len(unique_U) / sizes.batch for unique_U, _, _ in deduplicated])
    report.add(case, "seen_once_share", [float((counts_U == 1).mean()) for _, _, counts_U in deduplicated])

    rounds = interleave(
        sizes.rounds,
        {
            "unique": Contender(unique, batch),
            "numpy_unique": Contender(lambda ids_N: np.unique(ids_N, return_inverse=True, return_counts=True), batch),
            "has_duplicates": Contender(has_duplicates, lambda turn: deduplicated[turn % len(ids)][0]),
            "segment_sum": Contender(
                lambda known: segment_sum(grads_ND, known[1], out_UD[: len(known[0])]),
                lambda turn: deduplicated[turn % len(ids)],
            ),
            "numpy_add_at": Contender(
                lambda known: np.add.at(out_UD, known[1], grads_ND),
                lambda turn: deduplicated[turn % len(ids)],
            ),
        },
    )
    for name in rounds.seconds:
        amount = len(deduplicated[0][0]) if name == "has_duplicates" else sizes.batch
        report.add(case, f"{name}_million_per_s", rounds.per_second(name, amount / 1e6))
    report.add(case, "unique_vs_numpy", rounds.speed_ratio("unique", "numpy_unique"))
    report.add(case, "segment_sum_vs_numpy", rounds.speed_ratio("segment_sum", "numpy_add_at"))
