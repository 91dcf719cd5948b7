"""Generates clicks with Criteo's columns (13 numbers, 26 ids), any number of them, with a best possible AUC that is
known.

Rows are made in blocks of 16,384, each from (seed, block number): so row n depends neither on the batch size nor on
what was read before. Ids are unique over the features, so 26 tables or a single one both work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from ps.errors import InvalidArgument
from ps.nn.batch import Batch, FeatureSpec
from worker.data.columns import Columns, rebatch
from worker.data.skew import Popularity
from worker.data.teacher import Teacher, expected_auc

N_DENSE, N_SPARSE = 13, 26
BATCH = 65_536
"""The size of the batch in which the access statistics of `worker.data.skew` hold."""

_BLOCK = 16_384
"""How many rows are made at once: a feature's column stays in the cache."""
_AUC_ROWS = 2**18
_SPREAD = 50


class Synthetic:
    """A `Source` of `rows` generated rows.

    seed: the seed of everything, also of the teacher and of the popular ids.
    total_ids: ids of all features together, shared out by `spread_ids`. cardinalities: ids of each feature instead.
    drift: the share of ids whose popularity is drawn again in a million rows.
    table: one table for all features; None gives each its own, C1 to C26.
    Raises `InvalidArgument` for a value out of range.
    """

    name = "synthetic"
    n_dense = N_DENSE

    def __init__(
        self,
        rows: int = 500_000,
        seed: int = 0,
        *,
        total_ids: int = 5_000_000,
        cardinalities: Sequence[int] | None = None,
        drift: float = 0.0,
        table: str | None = None,
    ) -> None:
        if rows < 0 or seed < 0:
            raise InvalidArgument(f"rows is {rows}, seed {seed}; neither may be negative")
        self.len_rows = rows
        self.cardinalities = tuple(cardinalities or spread_ids(total_ids))
        if len(self.cardinalities) != N_SPARSE:
            raise InvalidArgument(f"{len(self.cardinalities)} cardinalities; {N_SPARSE} features need one each")
        names = [f"C{field}" for field in range(1, N_SPARSE + 1)]
        self.features = tuple(FeatureSpec(name, table or name) for name in names)
        self.teacher = Teacher(N_DENSE, N_SPARSE, seed)
        self._seed = seed
        self._popularity = [
            Popularity(n_ids, BATCH, seed * N_SPARSE + field, drift) for field, n_ids in enumerate(self.cardinalities)
        ]
        self._first_ids = np.cumsum([0, *self.cardinalities])

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields rows 0 to `len_rows`, the same at every call."""
        return rebatch(self.blocks(self.len_rows), batch_size, self.features)

    def blocks(self, rows: int) -> Iterator[Columns]:
        """Yields the first `rows` rows as numpy columns, 16,384 at a time."""
        for start in range(0, rows, _BLOCK):
            yield self._block(start).rows(0, min(_BLOCK, rows - start))

    @cached_property
    def best_auc(self) -> float:
        """The AUC of a model that knows the true probabilities, over at most the first 262,144 rows."""
        blocks = self.blocks(min(max(self.len_rows, _BLOCK), _AUC_ROWS))
        return expected_auc(np.concatenate([self.teacher.probabilities(block.dense, block.ids) for block in blocks]))

    def windows(self) -> Mapping[str, slice]:
        """Returns the second half, in which a model has learned something."""
        return {"second half": slice(self.len_rows // 2, self.len_rows)}

    def remarks(self) -> Sequence[str]:
        """Returns in words the AUC that could be reached."""
        return (f"best possible AUC: {self.best_auc:.4f}",)

    def _block(self, start: int) -> Columns:
        rng = np.random.default_rng([self._seed, start // _BLOCK])
        dense_BD = rng.standard_normal((_BLOCK, N_DENSE), dtype=np.float32)
        ids_FB = np.empty((N_SPARSE, _BLOCK), dtype=np.int64)
        for ids_B, popularity, first in zip(ids_FB, self._popularity, self._first_ids, strict=False):
            np.add(popularity.ids(popularity.ranks(rng, _BLOCK), start), first, out=ids_B)
        clicked_B = rng.random(_BLOCK, dtype=np.float32) < self.teacher.probabilities(dense_BD, ids_FB)
        return Columns(dense_BD, ids_FB, clicked_B.astype(np.float32))


def spread_ids(total_ids: int) -> tuple[int, ...]:
    """Returns how many of `total_ids` each of 26 features has: the largest has 50 times as many as the smallest, in
    even ratios.

    Raises `InvalidArgument` for fewer than 26 ids.
    """
    if total_ids < N_SPARSE:
        raise InvalidArgument(f"total_ids is {total_ids}; {N_SPARSE} features need at least one each")
    weights_F = np.geomspace(1, _SPREAD, N_SPARSE)
    sizes_F = 1 + (weights_F * (total_ids - N_SPARSE) / weights_F.sum()).astype(np.int64)
    sizes_F[-1] += total_ids - sizes_F.sum()  # what rounding down left over
    return tuple(int(size) for size in sizes_F)
