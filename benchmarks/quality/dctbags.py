"""Planted clicks with long bags (two features, 20 to 40 ids a bag), for the cases of `dctquality` that pool them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from ps.errors import InvalidArgument
from ps.nn.batch import Bags, Batch, FeatureSpec
from worker.data.skew import Popularity
from worker.data.source import Source
from worker.data.synthetic import BATCH, N_DENSE
from worker.data.teacher import Teacher, expected_auc

NAMES = ("seen", "liked")
SHORTEST, LONGEST = 20, 40
_JUDGED = 32_768


class PlantedBags:
    """Synthetic clicks as in `problems.planted`, for which the best possible AUC is known."""

    name = "bags"
    batch = 512
    row_lr = 0.02
    """The best of 0.002, 0.003, 0.005, 0.01, 0.02, 0.05 and 0.1 where everything is pushed and pulled as whole rows, on
    a seed that no figure is from. Untrained rows have 0.669 AUC there, these 0.755, the teacher 0.779."""

    def __init__(self, samples: int, total_ids: int) -> None:
        self._samples, self._total_ids = samples, total_ids

    def source(self, seed: int) -> Source:
        """Returns a stream with another teacher, other clicks and other popular ids for each seed."""
        return BagClicks(self._samples, self._total_ids, seed)

    def window(self) -> slice:
        """Judges the second half."""
        return slice(self._samples // 2, None)


class BagClicks:
    """A `Source` with two features, each with a table and half of the ids. Lengths of bags are uniform; ids have the
    skew of `worker.data.skew`, so some are in a bag several times.

    logit = dense · w + the sum of one effect an id, over both bags. Batches are made one by one, each from (seed, its
    number, its size): samples depend on the batch size.
    """

    name = "bags"
    n_dense = N_DENSE
    features = tuple(FeatureSpec(name, name) for name in NAMES)

    def __init__(self, rows: int, total_ids: int, seed: int) -> None:
        self.len_rows = rows
        self.teacher = Teacher(N_DENSE, len(NAMES) * (SHORTEST + LONGEST) // 2, seed, bias=0.0)
        self._seed = seed
        self._each = total_ids // len(NAMES)
        self._popularity = [Popularity(self._each, BATCH, seed * len(NAMES) + number) for number in range(len(NAMES))]

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields the same batches at every call."""
        if batch_size < 1:
            raise InvalidArgument(f"batch_size is {batch_size}; it must be 1 or more")
        for start in range(0, self.len_rows, batch_size):
            yield self._batch(start, min(batch_size, self.len_rows - start))[0]

    @cached_property
    def best_auc(self) -> float:
        """Returns the AUC of a model that knows the true probabilities, over 32,768 rows."""
        return expected_auc(self._batch(0, _JUDGED)[1])

    def windows(self) -> Mapping[str, slice]:
        """Judges the second half."""
        return {"second half": slice(self.len_rows // 2, self.len_rows)}

    def remarks(self) -> Sequence[str]:
        """Says which AUC could be reached."""
        return (f"best possible AUC: {self.best_auc:.4f}",)

    def _batch(self, start: int, size: int) -> tuple[Batch, np.ndarray]:
        """Makes `size` samples, and the probability that the label of each is 1, float32 [size]."""
        rng = np.random.default_rng([self._seed, start, size])
        dense_BD = rng.standard_normal((size, N_DENSE), dtype=np.float32)
        logits_B = dense_BD @ self.teacher.weights
        sparse = {}
        for number, (name, popularity) in enumerate(zip(NAMES, self._popularity, strict=True)):
            lengths_B = rng.integers(SHORTEST, LONGEST + 1, size)
            offsets_B = np.cumsum(lengths_B) - lengths_B
            ids_N = popularity.ids(popularity.ranks(rng, int(lengths_B.sum()))) + number * self._each
            logits_B += np.add.reduceat(self.teacher.effects(ids_N), offsets_B)
            sparse[name] = Bags(torch.from_numpy(ids_N), torch.from_numpy(offsets_B))
        probabilities_B = np.asarray(1 / (1 + np.exp(-logits_B)), dtype=np.float32)
        labels_B = (rng.random(size, dtype=np.float32) < probabilities_B).astype(np.float32)
        return Batch(torch.from_numpy(dense_BD), sparse, torch.from_numpy(labels_B)), probabilities_B
