"""Generated ids that the benchmarks feed to the system. All of it follows from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids

SKEW = 0.83
"""Exponent of the power law by which ids are drawn. The top 1 % of ids then take 45 % of the accesses and the top 10 %
two thirds, as in the tables whose statistics Meta published (dlrm_datasets)."""


def generator() -> np.random.Generator:
    """Returns a generator that gives the same numbers every time."""
    return np.random.default_rng(20240229)


def random_ids(rng: np.random.Generator, n: int) -> Ids:
    """Draws n distinct ids over all 64 bits."""
    ids_N = rng.integers(-(2**63), 2**63 - 1, n)
    if len(np.unique(ids_N)) != n:
        raise ValueError("the seed gives a duplicate: choose another")
    return ids_N


def skewed(rng: np.random.Generator, ids_N: Ids, n: int) -> Ids:
    """Draws n accesses to the ids, the first ones most often: rank k has density k**-SKEW."""
    ranks = (len(ids_N) * rng.random(n) ** (1.0 / (1.0 - SKEW))).astype(np.int64)
    return ids_N[ranks]


def batches(rng: np.random.Generator, ids_N: Ids, size: int) -> Callable[[int], Ids]:
    """Returns a function of the turn that gives `size` distinct random ids, other ones at every turn until all are used
    up."""
    shuffled_N = rng.permutation(ids_N)
    count = len(shuffled_N) // size
    return lambda turn: shuffled_N[turn % count * size :][:size]


def gradients(rng: np.random.Generator, n: int, dim: int) -> npt.NDArray[np.float32]:
    """Draws small normal numbers [n, dim]."""
    return rng.standard_normal((n, dim), dtype=np.float32) * np.float32(0.01)
