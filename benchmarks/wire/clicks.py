"""Clicks for `wirebytes`: 26 ids a sample, with the published skew in every batch."""

from __future__ import annotations

import numpy as np
import torch

from ps.nn.batch import Bags, Batch
from worker.data.skew import Popularity
from worker.data.synthetic import N_DENSE, N_SPARSE, spread_ids
from worker.data.teacher import Teacher

FEATURES = tuple(f"C{field}" for field in range(1, N_SPARSE + 1))


class Clicks:
    """Clicks of which a batch is made by its number. `Synthetic` is calibrated for 65,536 samples, and in a smaller
    batch more of its ids occur once; here the statistics of `worker.data.skew` hold in each batch, whatever its size.
    Labels are the planted teacher's."""

    def __init__(self, total_ids: int, draws: int) -> None:
        """`draws` is the number of ids of a batch, duplicates counted, rounded down to whole samples."""
        self.total_ids, self.samples = total_ids, draws // N_SPARSE
        sizes_F = spread_ids(total_ids)
        self._first_F = np.cumsum([0, *sizes_F[:-1]])
        self._popularity = [Popularity(size, self.samples, seed) for seed, size in enumerate(sizes_F)]
        self._teacher = Teacher(N_DENSE, N_SPARSE, 0)

    def batch(self, number: int) -> Batch:
        """Returns the same batch at every call. Ids of different features differ."""
        rng = np.random.default_rng([20240229, number])
        dense_BD = rng.standard_normal((self.samples, N_DENSE), dtype=np.float32)
        ids_FB = np.stack([one.ids(one.ranks(rng, self.samples)) for one in self._popularity])
        ids_FB += self._first_F[:, None]
        clicked_B = rng.random(self.samples, dtype=np.float32) < self._teacher.probabilities(dense_BD, ids_FB)
        offsets_B = torch.arange(self.samples)
        sparse = {name: Bags(torch.from_numpy(ids_B), offsets_B) for name, ids_B in zip(FEATURES, ids_FB, strict=True)}
        return Batch(torch.from_numpy(dense_BD), sparse, torch.from_numpy(clicked_B.astype(np.float32)))
