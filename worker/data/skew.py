"""Draws ids by popularity: a law fitted to Meta's published statistics (facebookresearch/dlrm_datasets).

In these statistics, of the ids seen in a batch of 65,536 samples the top 1 % take 43-47 % of the accesses, the top 10 %
68-71 %, the lower half 5-8 %, and 34-47 % are seen once. A plain Zipf law misses the once-only ids. So the law has two
parts: a share TAIL of the accesses is uniform over all ids, the rest falls as (rank + offset) ** -EXPONENT over a head.
The head's size follows the number of accesses in a batch, because the statistics do: over a longer stretch more of the
tail has been seen. The ranges hold where there is at least one id for two accesses of the batch; with fewer ids, a
smaller share of them is seen once. Numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ps.arrays import Ids
from ps.errors import InvalidArgument
from worker.data.hashing import mix

TAIL = 0.036
"""Share of the accesses that are uniform over all ids."""
EXPONENT = 0.895
"""How fast the head falls with the rank."""
HEAD = 0.08
"""Ids of the head for each access of a batch."""
OFFSET = 2e-5
"""Flattens the head at its most popular ids; in units of the head's size."""

MAX_IDS = 2**31
"""The most ids: above, rank times multiplier would not fit 63 bits."""
_CLASSES = 64
"""Drift renews one of so many classes of ranks after the other, so one step of it renews 1/64 of the ids."""


@dataclass(frozen=True)
class Popularity:
    """The ids of one feature and how often each is asked for.

    n_ids: how many there are. batch: the number of accesses in which the statistics hold. seed: decides which ids are
    popular. drift: the share of ids whose rank is drawn again in a million rows; 0 keeps the ranking for ever. Raises
    `InvalidArgument` for a value out of range.
    """

    n_ids: int
    batch: int
    seed: int = 0
    drift: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.n_ids <= MAX_IDS:
            raise InvalidArgument(f"n_ids is {self.n_ids}; it must be from 1 to {MAX_IDS}")
        if self.batch < 0 or self.drift < 0:
            raise InvalidArgument(f"batch is {self.batch}, drift {self.drift}; neither may be negative")

    def ranks(self, rng: np.random.Generator, n: int) -> Ids:
        """Returns `n` draws of a rank, 0 the most popular: int64 [n], by the inverse of the law's distribution
        function."""
        u_N = rng.random(n)
        tail_N = np.flatnonzero(u_N < TAIL)
        in_tail_T = u_N[tail_N] / TAIL
        head = min(max(1, round(HEAD * self.batch)), self.n_ids)
        power = 1 - EXPONENT
        low, high = OFFSET**power, (1 + OFFSET) ** power
        u_N -= TAIL
        u_N *= (high - low) / (1 - TAIL)
        u_N += low
        np.power(u_N, 1 / power, out=u_N)  # now (rank / head) + OFFSET; for the tail's draws it means nothing
        u_N -= OFFSET
        u_N *= head
        ranks_N = u_N.astype(np.int64)
        ranks_N[tail_N] = (in_tail_T * self.n_ids).astype(np.int64)
        return ranks_N

    def ids(self, ranks_N: Ids, row: int = 0) -> Ids:
        """Returns the ids that have these ranks when `row` rows have gone by: a bijection of [0, n_ids), int64 [N]."""
        if self.drift:
            ranks_N = self._dealt(ranks_N, row)
        return self._scrambled(ranks_N)

    def _scrambled(self, ranks_N: Ids) -> Ids:
        """Returns ids such that neighbours in rank have distant ids: it multiplies by a number near the golden section
        of n_ids."""
        shift = int(mix(np.array([self.seed], dtype=np.uint64))[0]) % self.n_ids
        ids_N = ranks_N * _multiplier(self.n_ids)
        ids_N += shift
        ids_N %= self.n_ids
        return ids_N

    def _dealt(self, ranks_N: Ids, row: int) -> Ids:
        """Rotates ranks within each class (rank modulo 64), by another amount in each generation of the class.

        Generations last 1/drift million rows and begin at another moment in each class, so the ranking moves in
        steps of 1/64 and is a bijection at every moment.
        """
        classes_C = np.arange(min(_CLASSES, self.n_ids), dtype=np.int64)
        generations_C = np.floor(row * self.drift / 1e6 + classes_C / len(classes_C)).astype(np.int64)
        sizes_C = (self.n_ids - classes_C + len(classes_C) - 1) // len(classes_C)
        words_C = mix((generations_C << 8 | classes_C).astype(np.uint64) + mix(np.array([self.seed], dtype=np.uint64)))
        turns_C = np.where(generations_C > 0, words_C % sizes_C.astype(np.uint64), 0).astype(np.int64)
        places_N, class_N = np.divmod(ranks_N, len(classes_C))
        places_N = (places_N + turns_C[class_N]) % sizes_C[class_N]
        return places_N * len(classes_C) + class_N


def _multiplier(n_ids: int) -> int:
    """Returns the first number from the golden section of n_ids on that shares no divisor with it."""
    candidate = max(1, round(n_ids * (math.sqrt(5) - 1) / 2))
    while math.gcd(candidate, n_ids) != 1:
        candidate += 1
    return candidate
