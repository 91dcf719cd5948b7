"""A batch: the ids of one call, deduplicated and split by shard, and the way back to the caller's order.

caller's ids [any shape]  --unique-->  unique_U  --split by shard-->  one run of ids per shard
caller's rows             <--take(inverse)--  rows_UD  <--place(order)--  rows of each shard
caller's gradients        --segment_sum-->  grads_UD  --take(order)-->  gradients of each shard

For a table with bags each shard sends one sum for each bag that has an id on it, and the client adds these sums; the
gradient of a bag goes to each of those shards.

A batch is a value: it includes the routing table that it was split by, and under another table it is another batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ps.array_like import ArrayLike, as_counts, as_ids
from ps.arrays import Counts, Ids
from ps.client.bags import checked_bags
from ps.client.bound import same_split
from ps.client.table_batch import TableBatch
from ps.config import TableConfig, TensorTrain
from ps.errors import DuplicateIds, LengthMismatch
from ps.kernels.index.unique import has_duplicates, unique
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.bags import PooledBags
from ps.wire.routing import Routing, Split, split_by_shard
from ps.wire.unpacking import count_ids, may_be_unpacked


@dataclass(frozen=True, eq=False)
class Batch:
    """The tables of one call, all split by the same routing table."""

    tables: tuple[TableBatch, ...]
    routing: Routing
    _digests: dict[int, int] = field(default_factory=dict)
    """The digests of the ids of each shard, as far as they were needed."""

    @property
    def epoch(self) -> int:
        """The routing epoch in the headers of requests that are made of this batch."""
        return self.routing.epoch

    @property
    def shards(self) -> list[int]:
        """The shards that have any id of the batch."""
        return [shard for shard in range(len(self.routing.shards)) if self._has_ids(shard)]

    def ids(self, shard: int) -> pb.IdSet:
        """Returns the ids of one shard as a message. If they would unpack to more than a shard allows for the bytes of
        their gaps, the ids of the largest tables are sent as they are."""
        parts = [table.part(shard) for table in self.tables]
        largest_first = iter(sorted(range(len(parts)), key=lambda number: -count_ids(parts[number])))
        while not may_be_unpacked(parts) and (number := next(largest_first, None)) is not None:
            parts[number] = replace(self.tables[number], compressed=False).part(shard)
        return pb.IdSet(tables=parts)

    def named_ids(self, shard: int) -> pb.IdSet:
        """Returns the ids of one shard for a prepare, and keeps their digest for the push that names the step."""
        ids = self.ids(shard)
        self._digests[shard] = codec.digest_ids(ids)
        return ids

    def ids_digest(self, shard: int) -> int:
        """Returns the digest of the ids that `ids` returns for a shard."""
        if shard not in self._digests:
            self.named_ids(shard)
        return self._digests[shard]

    def positives(self, positives: Mapping[str, ArrayLike]) -> dict[str, Counts]:
        """Returns the counts of each table by unique id. Raises LengthMismatch."""
        by_name = {table.config.name: table for table in self.tables}
        if not positives.keys() <= by_name.keys():
            raise LengthMismatch(
                f"positives for tables {sorted(positives)}, ids for {sorted(by_name)}: "
                "give positives only of tables with ids"
            )
        return {name: by_name[name].positives(counts) for name, counts in positives.items()}

    def split_by(self, routing: Routing) -> Batch:
        """Returns the same ids split by another routing table; this batch itself if the table is the same."""
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
    """Deduplicates ids and splits them by shard. With `counts`, the ids are unique already (DuplicateIds if not) and
    stay as they are. bags: for some of the tables, whose ids must be unique."""
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


def _split(unique_U: Ids, routing: Routing, compressed: bool) -> Split:
    """Splits ids by shard. Compressed ids ascend in the part of each shard."""
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
            raise DuplicateIds(
                f"table {config.name!r}: ids that are given with counts must be unique: "
                "give each id once, or leave counts out"
            )
        counts_U = as_counts(counts, ids.shape)
    else:
        distinct_U, where_N, occurrences_U = unique(flat_N)
        if len(distinct_U) < len(flat_N):
            unique_U, inverse_N, counts_U = distinct_U, where_N, occurrences_U
    split = _split(unique_U, routing, compressed)
    return TableBatch(config, given, ids.shape, unique_U, inverse_N, counts_U, split, compressed)
