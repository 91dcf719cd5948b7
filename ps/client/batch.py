"""A batch: the ids of one call, deduplicated and split by shard, and the way back to the caller's order.

caller's ids [any shape]  --unique-->  unique_U  --split by shard-->  one run of ids per shard
caller's rows             <--take(inverse)--  rows_UD  <--place(order)--  rows of each shard
caller's gradients        --segment_sum-->  grads_UD  --take(order)-->  gradients of each shard

Of a table with bags the shards send sums, one for each bag that has an id there, and the client adds them; the gradient
of a bag goes to each of those shards.

A batch is a value: it knows the routing table that it was split by, and by another one it is another batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Rows
from ps.client.arrays import ArrayLike, as_counts, as_ids, as_rows, as_scores, like
from ps.client.bags import ShardBags, checked_bags, split_bags
from ps.client.bound import same_split
from ps.client.writes.finite import check_finite
from ps.config import TableConfig, TensorTrain
from ps.errors import DuplicateIds, LengthMismatch
from ps.kernels.index.unique import has_duplicates, unique
from ps.kernels.rows.rows import take
from ps.v1 import embedding_pb2 as pb
from ps.wire import blocks, codec
from ps.wire.bags import PooledBags
from ps.wire.routing import Routing, Split, split_by_shard
from ps.wire.sorted_ids import encode_sorted_ids
from ps.wire.unpacking import count_ids, may_be_unpacked


@dataclass(frozen=True, eq=False)
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
    compressed: bool = False
    """Ids go sorted, as the gaps between them."""
    bags: PooledBags | None = None
    """Of which sums are pulled and gradients pushed, B of them; None: of the ids."""

    @cached_property
    def shard_bags(self) -> list[ShardBags]:
        """Each shard's part of the bags."""
        assert self.bags is not None
        return split_bags(self.bags, self.split)

    @property
    def sent(self) -> int:
        """How many rows, or sums, are pulled: U or B."""
        return len(self.unique_U) if self.bags is None else len(self.bags)

    def part(self, shard: int) -> pb.TableIds:
        """The ids of one shard, as a message."""
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
        """What is said of one shard's rows before they are sent."""
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
        """Where a shard's ids are among the unique ids."""
        where = self.split.of(shard)
        return where if self.split.order_N is None else self.split.order_N[where]

    def expand(self, rows_UD: Rows) -> ArrayLike:
        """Rows in the caller's order, shape and kind; or the sums of the bags."""
        if self.bags is not None:
            return like(rows_UD, self.given)
        rows_ND = rows_UD
        if self.inverse_N is not None:
            rows_ND = np.empty((len(self.inverse_N), rows_UD.shape[1]), dtype=np.float32)
            take(rows_UD, self.inverse_N, rows_ND)
        return like(rows_ND.reshape(*self.shape, rows_UD.shape[1]), self.given)

    def expand_flags(self, flags_U: npt.NDArray[np.bool_]) -> ArrayLike:
        """Flags in the caller's order, shape and kind."""
        flags_N = flags_U if self.inverse_N is None else flags_U[self.inverse_N]
        return like(flags_N.reshape(self.shape), self.given)

    def positives(self, counts: ArrayLike) -> Counts:
        """Counts of the given ids in the order of unique_U, those of duplicates summed."""
        counts_N = as_counts(counts, self.shape)
        if self.inverse_N is None:
            return counts_N
        return np.minimum(self._summed(counts_N), np.iinfo(np.uint32).max).astype(np.uint32)

    def scores(self, scores: ArrayLike) -> Rows:
        """Reported scores in the order of unique_U, those of duplicates summed."""
        scores_N = as_scores(scores, self.shape)
        if self.inverse_N is None:
            return scores_N
        return np.minimum(self._summed(scores_N), np.finfo(np.float32).max).astype(np.float32)

    def _summed(self, values_N: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        sums_U = np.bincount(self.inverse_N, weights=values_N, minlength=len(self.unique_U))  # type: ignore[arg-type]
        return sums_U.astype(np.float64, copy=False)  # of no ids at all, bincount makes integers

    def values(self, rows: ArrayLike) -> Rows:
        """Values of rows, one for each id; raises NonFiniteGradient."""
        what = f"rows for table {self.config.name!r}"
        values_UD = as_rows(rows, self.shape, self.config.dim, what)
        check_finite(values_UD, self.unique_U, what)
        return values_UD

    def by_shard(self, rows_UD: Rows) -> Rows:
        """Rows in the order of `split.ids_N`."""
        if self.split.order_N is None:
            return rows_UD
        grouped_UD = np.empty_like(rows_UD)
        take(rows_UD, self.split.order_N, grouped_UD)
        return grouped_UD


@dataclass(frozen=True, eq=False)
class Batch:
    """The tables of one call, all split by the same routing table."""

    tables: tuple[TableBatch, ...]
    routing: Routing

    @property
    def epoch(self) -> int:
        """What a request made of this batch says in its header."""
        return self.routing.epoch

    @property
    def shards(self) -> list[int]:
        """The shards that have any id of the batch."""
        return [shard for shard in range(len(self.routing.shards)) if self._has_ids(shard)]

    def ids(self, shard: int) -> pb.IdSet:
        """The ids that are one shard's. Where they are too many for the bytes of their gaps, the largest tables'
        go as they are."""
        parts = [table.part(shard) for table in self.tables]
        largest_first = iter(sorted(range(len(parts)), key=lambda number: -count_ids(parts[number])))
        while not may_be_unpacked(parts) and (number := next(largest_first, None)) is not None:
            parts[number] = replace(self.tables[number], compressed=False).part(shard)
        return pb.IdSet(tables=parts)

    def positives(self, positives: Mapping[str, ArrayLike]) -> dict[str, Counts]:
        """Of the tables given, by unique id; raises LengthMismatch."""
        by_name = {table.config.name: table for table in self.tables}
        if not positives.keys() <= by_name.keys():
            raise LengthMismatch(f"positives for tables {sorted(positives)}, ids for {sorted(by_name)}")
        return {name: by_name[name].positives(counts) for name, counts in positives.items()}

    def split_by(self, routing: Routing) -> Batch:
        """The same ids by another routing table; this very batch if it is the same one."""
        if same_split(self.routing, routing):
            return self
        tables = [replace(table, split=_split(table.unique_U, routing, table.compressed)) for table in self.tables]
        return Batch(tuple(tables), routing)

    def _has_ids(self, shard: int) -> bool:
        return any(table.split.starts[shard + 1] > table.split.starts[shard] for table in self.tables)


def make_batch(
    ids: Mapping[str, ArrayLike],
    configs: Mapping[str, TableConfig],
    routing: Routing,
    counts: Mapping[str, ArrayLike] | None = None,
    compressed: bool = False,
    bags: Mapping[str, PooledBags] | None = None,
) -> Batch:
    """Deduplicates and splits. With `counts`, the ids are unique already (DuplicateIds if not) and stay as they are.
    `bags` are of some of the tables, whose ids must be unique."""
    tables = [
        _table_batch(configs[name], given, routing, None if counts is None else counts[name], compressed)
        for name, given in ids.items()
    ]
    if bags:
        tables = [_with_bags(table, bags.get(table.config.name)) for table in tables]
    return Batch(tuple(tables), routing)


def _with_bags(table: TableBatch, bags: PooledBags | None) -> TableBatch:
    if bags is None:
        return table
    if table.inverse_N is not None:
        raise DuplicateIds(f"table {table.config.name!r}: bags name ids by their positions: give each id once")
    return replace(table, bags=checked_bags(bags, len(table.unique_U), table.config.name))


def _split(unique_U: npt.NDArray[np.int64], routing: Routing, compressed: bool) -> Split:
    """Compressed ids ascend in each shard's part."""
    split = split_by_shard(unique_U, routing)
    if not compressed:
        return split
    ids_N = split.ids_N.copy()
    order_N = np.arange(len(ids_N)) if split.order_N is None else split.order_N.copy()
    for shard in range(len(routing.shards)):
        where = split.of(shard)
        sorted_N = np.argsort(ids_N[where])
        ids_N[where], order_N[where] = ids_N[where][sorted_N], order_N[where][sorted_N]
    return Split(ids_N, order_N, split.starts)


def _table_batch(
    config: TableConfig, given: ArrayLike, routing: Routing, counts: ArrayLike | None, compressed: bool
) -> TableBatch:
    ids = as_ids(given)
    flat_N = ids.reshape(-1)
    if isinstance(config.cold, TensorTrain) and len(flat_N):
        config.cold.check_ids(config.name, int(flat_N.min()), int(flat_N.max()))
    unique_U, inverse_N, counts_U = flat_N, None, None
    if counts is not None:
        if has_duplicates(flat_N):
            raise DuplicateIds(f"table {config.name!r}: ids given with counts must be unique")
        counts_U = as_counts(counts, ids.shape)
    else:
        distinct_U, where_N, occurrences_U = unique(flat_N)
        if len(distinct_U) < len(flat_N):
            unique_U, inverse_N, counts_U = distinct_U, where_N, occurrences_U
    split = _split(unique_U, routing, compressed)
    return TableBatch(config, given, ids.shape, unique_U, inverse_N, counts_U, split, compressed)
