"""Which rows cuts have met: equal to the numpy specification."""

from __future__ import annotations

import numpy as np

from ps.kernels.ranking import cuts as kernels
from ps.kernels.ranking.score import LOTS
from ps.kernels.reference.ranking import cuts as reference

from .strategies import same_bytes
from .test_score import cases, rows


def some_cuts(rng, now):
    """Of all lots, and of some of them."""
    cuts = int(rng.integers(0, 5))
    stamps_C = np.sort(rng.choice(now + 10, cuts, replace=False))
    ranks_C = np.sort(rng.choice(20_000, cuts, replace=False))[::-1].copy()
    of_lots = (LOTS, int(rng.integers(0, 4)))
    return stamps_C, ranks_C, rng.integers(-1, now + 10, of_lots), rng.integers(0, 20_000, of_lots)


@cases
def test_met_is_that_of_the_reference(slots, n, now, seed):
    rng, statistics_S2, _ = rows(slots, now, seed)
    cuts, per_tick = some_cuts(rng, now), np.uint32(rng.integers(1, 4))
    out_N, expected_N = np.zeros(slots, np.bool_), np.zeros(slots, np.bool_)
    kernels.met(statistics_S2, per_tick, *cuts, out_N)
    reference.met(statistics_S2, per_tick, *cuts, expected_N)
    assert same_bytes(out_N, expected_N)


@cases
def test_select_met_is_that_of_the_reference(slots, n, now, seed):
    rng, statistics_S2, marks_S = rows(slots, now, seed)
    cuts = some_cuts(rng, now)
    where = (int(rng.integers(0, slots)), slots, np.uint32(rng.integers(1, 4)))
    found_N, expected_N = (np.full(n, -7) for _ in range(2))
    found = kernels.select_met(statistics_S2, marks_S, *where, *cuts, found_N)
    assert found == reference.select_met(statistics_S2, marks_S, *where, *cuts, expected_N)
    assert same_bytes(found_N, expected_N)
