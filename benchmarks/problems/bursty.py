"""Planted clicks whose ids come in bursts: a user is there for a while, and then not for long.

    a burst:  an id, how often it occurs in it, and over how many samples that is spread
    a feature: bursts that begin at random, until every sample has an id

logit = dense · w + one effect an id, as in `worker.data.synthetic`; so labels have nothing to do with bursts, and what
a burst teaches is of use in the next one of its id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.problems.stream import InMemory
from ps.nn.batch import FeatureSpec
from worker.data.columns import Columns
from worker.data.source import Source
from worker.data.teacher import Teacher

N_DENSE = 4


@dataclass(frozen=True)
class Bursts:
    """How the ids of a feature come in bursts."""

    ids: int
    length: float
    """Occurrences in a burst, on average; their number is geometric."""
    spread: float
    """Samples between two occurrences, on average."""


FEATURES = {
    "user": Bursts(4_000, 20, 15),
    "session": Bursts(10_000, 8, 8),
    "advert": Bursts(2_000, 60, 40),
    "page": Bursts(6_000, 30, 100),
    "place": Bursts(300, 5, 10_000),
    "device": Bursts(20, 5, 50_000),
}
"""The features. The last two do not come in bursts: their occurrences are spread over much of the pass."""


class Bursty:
    """A stream of clicks with 22,320 ids in two tables."""

    name = "bursty"
    batch = 256
    row_lr = 0.05
    """The best of 0.02, 0.05, 0.1 and 0.2."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def source(self, seed: int) -> Source:
        """Returns a stream with another teacher, other bursts and other clicks for each seed."""
        rng = np.random.default_rng([seed, 24])
        first_F = np.cumsum([0, *(bursts.ids for bursts in FEATURES.values())])
        ids_FN = np.stack([_ids(rng, bursts, self._samples) for bursts in FEATURES.values()]) + first_F[:-1, None]
        dense_ND = rng.standard_normal((self._samples, N_DENSE), dtype=np.float32)
        teacher = Teacher(N_DENSE, len(FEATURES), seed, sparse_std=1.5)
        clicked_N = rng.random(self._samples, dtype=np.float32) < teacher.probabilities(dense_ND, ids_FN)
        specs = [FeatureSpec(name, "steady" if name in ("place", "device") else "bursty") for name in FEATURES]
        return InMemory(self.name, specs, Columns(dense_ND, ids_FN, clicked_N.astype(np.float32)))

    def window(self) -> slice:
        """Judges the second half."""
        return slice(self._samples // 2, None)


def _ids(rng: np.random.Generator, bursts: Bursts, samples: int) -> npt.NDArray[np.int64]:
    """Draws ids from 0 on, int64 [samples]."""
    n = int(1.5 * samples / bursts.length) + 100  # of them the first that fill all samples
    lengths_B = rng.geometric(1 / bursts.length, n)
    begins_B = rng.random(n) * samples
    of_burst_K = np.repeat(np.arange(n), lengths_B)
    within_K = rng.random(len(of_burst_K)) * (lengths_B * bursts.spread)[of_burst_K]
    at_K = (begins_B[of_burst_K] + within_K) % samples  # those past the end are at the beginning: equally dense
    order_K = np.argsort(at_K, kind="stable")
    kept_N = order_K[np.sort(rng.permutation(len(order_K))[:samples])]
    ids_N: npt.NDArray[np.int64] = rng.integers(0, bursts.ids, n)[of_burst_K[kept_N]]
    return ids_N
