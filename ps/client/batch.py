"""A batch: the ids of one step, deduplicated and split by shard, and the way back to the caller's order.

caller's ids [any shape]  --unique-->  unique_U  --split by shard-->  one run of ids per shard
caller's rows             <--take(inverse)--  rows_UD  <--place(order)--  rows of each shard
caller's gradients        --segment_sum-->  grads_UD  --take(order)-->  gradients of each shard
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ps.client.arrays import ArrayLike, as_counts, as_ids, as_rows, like
from ps.config import TableConfig
from ps.errors import DuplicateIds
from ps.kernels.rows import take
from ps.kernels.unique import has_duplicates, segment_sum, unique
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.routing import Routing, Split, split_by_shard

Rows = npt.NDArray[np.float32]


@dataclass
class TableBatch:
    """The ids of one table."""

    config: TableConfig
    given: ArrayLike
    shape: tuple[int, ...]
    unique_U: npt.NDArray[np.int64]
    inverse_N: npt.NDArray[np.int64] | None
    """Where each given id is in unique_U; None when they are the same."""
    counts_U: npt.NDArray[np.uint32] | None
    """Occurrences; None for one each."""
    split: Split

    def part(self, shard: int) -> pb.TableIds:
        """The ids of one shard, as a message."""
        where = self.split.of(shard)
        counts = self.counts_U
        if counts is not None:
            counts = counts[where] if self.split.order_N is None else counts[self.split.order_N[where]]
        ids = codec.encode_ids(self.split.ids_N[where])
        return pb.TableIds(table=self.config.name, ids=ids, counts=codec.encode_counts(counts))

    def expand(self, rows_UD: Rows) -> ArrayLike:
        """Rows in the caller's order, shape and kind."""
        rows_ND = rows_UD
        if self.inverse_N is not None:
            rows_ND = np.empty((len(self.inverse_N), rows_UD.shape[1]), dtype=np.float32)
            take(rows_UD, self.inverse_N, rows_ND)
        return like(rows_ND.reshape(*self.shape, rows_UD.shape[1]), self.given)

    def expand_flags(self, flags_U: npt.NDArray[np.bool_]) -> ArrayLike:
        """Flags in the caller's order, shape and kind."""
        flags_N = flags_U if self.inverse_N is None else flags_U[self.inverse_N]
        return like(flags_N.reshape(self.shape), self.given)

    def sum(self, grads: ArrayLike) -> Rows:
        """Gradients in the order of unique_U, duplicates summed in the caller's order."""
        grads_ND = as_rows(grads, self.shape, self.config.dim, f"gradients for table {self.config.name!r}")
        if self.inverse_N is None:
            return grads_ND
        grads_UD = np.empty((len(self.unique_U), self.config.dim), dtype=np.float32)
        segment_sum(grads_ND, self.inverse_N, grads_UD)
        return grads_UD

    def by_shard(self, rows_UD: Rows) -> Rows:
        """Rows in the order of `split.ids_N`."""
        if self.split.order_N is None:
            return rows_UD
        grouped_UD = np.empty_like(rows_UD)
        take(rows_UD, self.split.order_N, grouped_UD)
        return grouped_UD

    def reroute(self, routing: Routing) -> None:
        """Splits the ids again."""
        self.split = split_by_shard(self.unique_U, routing)


def make_batch(
    ids: Mapping[str, ArrayLike],
    configs: Mapping[str, TableConfig],
    routing: Routing,
    counts: Mapping[str, ArrayLike] | None = None,
) -> list[TableBatch]:
    """Deduplicates and splits. With `counts`, the ids are unique already (DuplicateIds if not) and stay as they are."""
    return [
        _table_batch(configs[name], given, routing, None if counts is None else counts[name])
        for name, given in ids.items()
    ]


def _table_batch(config: TableConfig, given: ArrayLike, routing: Routing, counts: ArrayLike | None) -> TableBatch:
    ids = as_ids(given)
    flat_N = ids.reshape(-1)
    unique_U, inverse_N, counts_U = flat_N, None, None
    if counts is not None:
        if has_duplicates(flat_N):
            raise DuplicateIds(f"table {config.name!r}: ids given with counts must be unique")
        counts_U = as_counts(counts, ids.shape)
    else:
        distinct_U, where_N, occurrences_U = unique(flat_N)
        if len(distinct_U) < len(flat_N):
            unique_U, inverse_N, counts_U = distinct_U, where_N, occurrences_U
    return TableBatch(config, given, ids.shape, unique_U, inverse_N, counts_U, split_by_shard(unique_U, routing))


def id_set(batch: list[TableBatch], shard: int) -> pb.IdSet:
    """The ids of a batch that are one shard's."""
    return pb.IdSet(tables=[table.part(shard) for table in batch])


def has_ids(batch: list[TableBatch], shard: int) -> bool:
    """Whether the shard has any id of the batch."""
    return any(table.split.starts[shard + 1] > table.split.starts[shard] for table in batch)
