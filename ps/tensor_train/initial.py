"""What cores start as: so that rows are distributed as those of an uncompressed table would be, and learn as those.

A dense table of click models starts as U(-1/sqrt(n), 1/sqrt(n)) for n rows, of variance 1/(3n). Of all Gaussians
N(0, 1/(3n)) is the nearest to it by Kullback-Leibler divergence (Yin et al., MLSys 2021, section 3.2). An element of a
row is a sum of R_1 ... R_(K-1) products of K entries; it has variance v if the second moments of their cores' entries
multiply to v / (R_1 ... R_(K-1)).

The paper has them all equal. Here one core, the last but one, has second moment v, and entries of the others 1 / R, of
the rank that is between them and it: slices of theirs are near-orthonormal matrices. So what a row moves by when the
large core does, is about what that core moves by, at every rank, and stays so when rows grow to a hundred times
their first size (`rates`); with equal moments it is another at each rank, and grows with the rows.

Which entries of that second moment, is the initializer:

    approximate_uniform   the paper's "sampled Gaussian" (Algorithm 3): N(0, 1) without its middle, abs(x) >= 2, scaled.
                          A product of values that are never near 0 is itself rarely near 0
    gaussian, uniform     plain ones, for comparison: their products pile up at 0
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt

from ps.tensor_train.shape import TTShape

CoreInitializer = Literal["approximate_uniform", "gaussian", "uniform"]

TAIL = 2.0
"""`approximate_uniform` draws from a standard normal without the entries nearer to 0 than this."""


BLOCK = 1 << 17
"""How many numbers are drawn at once: their intermediate values take 60 bytes each."""


def default_variance(rows: int) -> float:
    """Returns the variance of U(-1/sqrt(rows), 1/sqrt(rows))."""
    return 1 / (3 * rows)


def initial_cores(
    shape: TTShape, variance: float, kind: CoreInitializer = "approximate_uniform", seed: int = 0
) -> list[npt.NDArray[np.float32]]:
    """Draws the cores, float32 [p, R, q, S] each, as a function of the arguments alone; an element of a row has this
    variance."""
    found = []
    for k, (core, moment) in enumerate(zip(shape.cores, _moments(shape, variance), strict=True)):
        rng = np.random.Generator(np.random.Philox(key=[seed, k]))
        array = np.empty(core, np.float32)
        flat = array.reshape(-1)
        for start in range(0, len(flat), BLOCK):
            part = flat[start : start + BLOCK]
            part[:] = _unit(rng, len(part), kind) * math.sqrt(moment)
        found.append(array)
    return found


def _moments(shape: TTShape, variance: float) -> list[float]:
    """Returns the second moment of each core's entries."""
    large = len(shape.p) - 2
    return [1 / after for after in shape.ranks[:large]] + [variance] + [1 / shape.ranks[large]]


def _unit(rng: np.random.Generator, n: int, kind: CoreInitializer) -> npt.NDArray[np.float64]:
    """Draws n numbers of second moment 1."""
    match kind:
        case "approximate_uniform":
            return _tail(rng, n) / math.sqrt(tail_moment(TAIL))
        case "gaussian":
            return rng.standard_normal(n)
        case "uniform":
            return rng.uniform(-math.sqrt(3), math.sqrt(3), n)


def tail_moment(a: float) -> float:
    """Returns E[x * x] of a standard normal with abs(x) >= a: 1 + a * density(a) / P(x >= a)."""
    density = math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    return 1 + a * density / (0.5 * math.erfc(a / math.sqrt(2)))


def _tail(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    """Draws n numbers of a standard normal with abs(x) >= TAIL, by Marsaglia's method (1964): most of the first draws
    are kept."""
    kept: list[npt.NDArray[np.float64]] = []
    missing = n
    while missing:
        u, v = rng.random(missing + missing // 4 + 8), rng.random(missing + missing // 4 + 8)
        x = np.sqrt(TAIL * TAIL - 2 * np.log1p(-u))
        kept.append(x[v * x < TAIL][:missing])
        missing -= len(kept[-1])
    signs_N: npt.NDArray[np.float64] = rng.choice([-1.0, 1.0], n)
    return np.concatenate(kept) * signs_N
