"""Computes how a table of rows x dim is cut into cores: pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ps.arrays import Ints

CORES = range(2, 5)
"""The numbers of cores that a table may have."""


@dataclass(frozen=True)
class TTShape:
    """Row number i has digits (i_1, ..., i_K) in base p, the first the most significant, and is the product of slice
    i_k of each core; core k is [p_k, R_(k-1), q_k, R_k] with R_0 = R_K = 1 (Yin et al., MLSys 2021, section 3)."""

    rows: int
    """The number of rows that were asked for; the product of p may be more."""
    p: tuple[int, ...]
    q: tuple[int, ...]
    """The factors of the dim."""
    ranks: tuple[int, ...]
    """The ranks R_1 to R_(K-1)."""

    @property
    def dim(self) -> int:
        """The number of floats of a row."""
        return math.prod(self.q)

    @property
    def padding(self) -> int:
        """Rows that the cores stand for and nobody asked for."""
        return math.prod(self.p) - self.rows

    @property
    def cores(self) -> list[tuple[int, int, int, int]]:
        """The shape of each core: [p, R before, q, R after]."""
        ranks = (1, *self.ranks, 1)
        return [(p, ranks[k], q, ranks[k + 1]) for k, (p, q) in enumerate(zip(self.p, self.q, strict=True))]

    @property
    def slice_sizes(self) -> list[int]:
        """The number of floats of one slice of each core."""
        return [before * q * after for _, before, q, after in self.cores]

    @property
    def parameters(self) -> int:
        """The number of floats of all cores."""
        return sum(p * size for p, size in zip(self.p, self.slice_sizes, strict=True))

    @property
    def compression(self) -> float:
        """Floats of the dense table, divided by those of the cores."""
        return self.rows * self.dim / self.parameters

    def digits(self, index_N: Ints) -> Ints:
        """Returns which slice of each core a row number stands for, [K, n]. Row numbers are in [0, rows)."""
        digits_KN = np.empty((len(self.p), len(index_N)), np.int64)
        rest_N = index_N
        for k in range(len(self.p) - 1, 0, -1):
            rest_N, digits_KN[k] = np.divmod(rest_N, self.p[k])
        digits_KN[0] = rest_N
        return digits_KN


def tt_shape(
    rows: int,
    dim: int,
    ranks: int | Sequence[int],
    cores: int = 3,
    p: Sequence[int] | None = None,
    q: Sequence[int] | None = None,
) -> TTShape:
    """Returns the shape of a table; p and q are chosen where they are not given. `ranks` is one number for all, or
    cores - 1 numbers.

    Raises ValueError where the parts do not fit together.
    """
    if min(rows, dim) < 1 or cores not in CORES:
        raise ValueError(f"{rows} rows x dim {dim} in {cores} cores: rows and dim are 1 or more, cores 2, 3 or 4")
    p = tuple(p) if p is not None else suggested_p(rows, cores)
    q = tuple(q) if q is not None else suggested_q(dim, cores)
    ranks = (ranks,) * (cores - 1) if isinstance(ranks, int) else tuple(ranks)
    if not len(p) == len(q) == len(ranks) + 1 == cores:
        raise ValueError(f"{cores} cores take {cores} p, {cores} q and {cores - 1} ranks; got {p}, {q}, {ranks}")
    if min(p + q + ranks) < 1:
        raise ValueError(f"p {p}, q {q} and ranks {ranks} must be 1 or more each")
    if math.prod(p) < rows:
        raise ValueError(f"p {p} stands for {math.prod(p):,} rows, fewer than the {rows:,} of the table: raise one")
    if math.prod(q) != dim:
        raise ValueError(
            f"q {q} makes rows of {math.prod(q)} floats: their product must be the dim of the table, {dim}"
        )
    return TTShape(rows, p, q, ranks)


def suggested_p(rows: int, cores: int) -> tuple[int, ...]:
    """Returns rising factors, 1 apart at most, whose product is at least `rows`: cores are smallest then.

    The largest come first, each the root of what is left rounded up, so the smallest of all cannot be 1 less: the
    product is more than `rows` by less than the product of all others.
    """
    factors: list[int] = []
    rest = rows
    for left in range(cores, 0, -1):
        factor = max(_root(rest, left), 1)
        factors.append(factor)
        rest = -(-rest // factor)
    return tuple(sorted(factors))


def suggested_q(dim: int, cores: int) -> tuple[int, ...]:
    """Returns the most nearly equal factors of `dim`, rising; some are 1 where it has too few."""
    if cores == 1:
        return (dim,)
    best = (1,) * (cores - 1) + (dim,)
    for first in range(1, _root(dim, cores) + 1):
        if dim % first == 0:
            found = (first, *suggested_q(dim // first, cores - 1))
            if found[0] <= found[1] and max(found) <= max(best):
                best = found
    return best


def _root(n: int, k: int) -> int:
    """Returns the smallest integer whose k-th power is at least n."""
    root: int = max(round(n ** (1 / k)), 1)
    while root**k < n:
        root += 1
    while root > 1 and (root - 1) ** k >= n:
        root -= 1
    return root
