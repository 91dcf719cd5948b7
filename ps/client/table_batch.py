"""The ids of one table in a batch: what is sent to each shard, and how rows and flags are put back into the caller's
order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.array_like import ArrayLike, as_counts, as_rows, as_scores, like
from ps.arrays import Counts, Rows
from ps.client.bags import ShardBags, split_bags
from ps.client.writes.finite import check_finite
from ps.config import TableConfig
from ps.kernels.rows.rows import take
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec
from ps.wire.bags import PooledBags
from ps.wire.routing import Split
from ps.wire.sorted_ids import encode_sorted_ids
from ps.wire.unpacking import may_be_unpacked


@dataclass(frozen=True, eq=False)
class TableBatch:
    """The ids of one table."""

    config: TableConfig
    given: ArrayLike
    shape: tuple[int, ...]
    unique_U: npt.NDArray[np.int64]
    inverse_N: npt.NDArray[np.int64] | None
    """The position of each given id in unique_U; None if the given ids are unique_U."""
    counts_U: npt.NDArray[np.uint32] | None
    """How often each unique id occurs; None: once each."""
    split: Split
    compressed: bool = False
    """Whether ids are sent sorted, as the gaps between them."""
    bags: PooledBags | None = None
    """The B bags whose sums are pulled and whose gradients are pushed; None: rows are pulled and pushed."""

    @cached_property
    def shard_bags(self) -> list[ShardBags]:
        """The part of the bags that each shard has."""
        assert self.bags is not None
        return split_bags(self.bags, self.split)

    @property
    def sent(self) -> int:
        """How many rows, U, or sums, B, are pulled."""
        return len(self.unique_U) if self.bags is None else len(self.bags)

    def part(self, shard: int) -> pb.TableIds:
        """Returns the ids of one shard as a message."""
        counts = None if self.counts_U is None else self.counts_U[self.positions(shard)]
        part = pb.TableIds(table=self.config.name, counts=codec.encode_counts(counts))
        ids_N = self.split.ids_N[self.split.of(shard)]
        if self.compressed:
            part.sorted_ids = encode_sorted_ids(ids_N)
        else:
            part.ids = codec.encode_ids(ids_N)
        if self.bags is not None:
            part.bags = self.shard_bags[shard].encoded(len(ids_N))
        if self.compressed and not may_be_unpacked([part]):
            return replace(self, compressed=False).part(shard)
        return part

    def shape_of(
        self,
        shard: int,
        body: Sequence[blocks.EncodedBlock],
        positives_U: Counts | None = None,
        of_bags: Sequence[blocks.EncodedBlock] = (),
    ) -> pb.PushedTable:
        """Returns the shape of one shard's rows, which is sent before them."""
        where = self.split.of(shard)
        positives = codec.encode_counts(None if positives_U is None else positives_U[self.positions(shard)])
        return pb.PushedTable(
            table=self.config.name,
            rows=where.stop - where.start,
            dim=self.config.dim,
            positives=positives,
            blocks=blocks.heads(body),
            bags=0 if self.bags is None else len(self.shard_bags[shard]),
            bag_blocks=blocks.heads(of_bags),
        )

    def positions(self, shard: int) -> slice | npt.NDArray[np.int64]:
        """Returns the positions of a shard's ids among the unique ids."""
        where = self.split.of(shard)
        return where if self.split.order_N is None else self.split.order_N[where]

    def expand(self, rows_UD: Rows) -> ArrayLike:
        """Returns rows in the caller's order, shape and kind of array; or the sums of the bags."""
        if self.bags is not None:
            return like(rows_UD, self.given)
        rows_ND = rows_UD
        if self.inverse_N is not None:
            rows_ND = np.empty((len(self.inverse_N), rows_UD.shape[1]), dtype=np.float32)
            take(rows_UD, self.inverse_N, rows_ND)
        return like(rows_ND.reshape(*self.shape, rows_UD.shape[1]), self.given)

    def expand_flags(self, flags_U: npt.NDArray[np.bool_]) -> ArrayLike:
        """Returns flags in the caller's order, shape and kind of array."""
        flags_N = flags_U if self.inverse_N is None else flags_U[self.inverse_N]
        return like(flags_N.reshape(self.shape), self.given)

    def positives(self, counts: ArrayLike) -> Counts:
        """Returns counts for the given ids in the order of unique_U; those of duplicates are summed."""
        counts_N = as_counts(counts, self.shape)
        if self.inverse_N is None:
            return counts_N
        return np.minimum(self._summed(counts_N), np.iinfo(np.uint32).max).astype(np.uint32)

    def scores(self, scores: ArrayLike) -> Rows:
        """Returns reported scores in the order of unique_U; those of duplicates are summed."""
        scores_N = as_scores(scores, self.shape)
        if self.inverse_N is None:
            return scores_N
        return np.minimum(self._summed(scores_N), np.finfo(np.float32).max).astype(np.float32)

    def _summed(self, values_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        sums_U = np.bincount(self.inverse_N, weights=values_N, minlength=len(self.unique_U))  # type: ignore[arg-type]
        return sums_U.astype(np.float64, copy=False)  # of no ids at all, bincount makes integers

    def values(self, rows: ArrayLike) -> Rows:
        """Returns the values of rows, one for each id, as float32. Raises NonFiniteGradient."""
        what = f"rows for table {self.config.name!r}"
        values_UD = as_rows(rows, self.shape, self.config.dim, what)
        check_finite(values_UD, self.unique_U, what)
        return values_UD

    def by_shard(self, rows_UD: Rows) -> Rows:
        """Returns rows in the order of `split.ids_N`."""
        if self.split.order_N is None:
            return rows_UD
        grouped_UD = np.empty_like(rows_UD)
        take(rows_UD, self.split.order_N, grouped_UD)
        return grouped_UD
