"""A batch: duplicates away, split by shard, and the way back to the caller's order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.client.batch import make_batch
from ps.client.writes.outgoing import Outgoing
from ps.wire import codec
from ps.wire.formats import TableFormat
from ps.wire.routing import Routing, ShardInfo
from ps.wire.unpacking import may_be_unpacked

DIM = 3
CONFIGS = {name: ps.TableConfig(name=name, dim=DIM) for name in ("a", "b")}
id_lists = st.lists(st.integers(-4, 4) | st.integers(-(2**63), 2**63 - 1), max_size=25)
shard_counts = st.integers(1, 4)


def routing(shards: int) -> Routing:
    return Routing.even(1, [ShardInfo(i, "") for i in range(shards)])


def sent(table: ps.client.batch.TableBatch, shards: int) -> dict[int, int]:
    """Id -> count, over all shards' messages; fails if an id is sent twice."""
    found: dict[int, int] = {}
    for shard in range(shards):
        part = table.part(shard)
        ids_N = codec.decode_ids(part.ids)
        counts_N = codec.decode_counts(part.counts, len(ids_N))
        for i, id_ in enumerate(ids_N.tolist()):
            assert id_ not in found
            found[id_] = 1 if counts_N is None else int(counts_N[i])
    return found


@given(id_lists, shard_counts)
def test_each_distinct_id_is_sent_once_to_one_shard_with_its_count(ids: list[int], shards: int) -> None:
    (table,) = make_batch({"a": ids}, CONFIGS, routing(shards)).tables
    assert sent(table, shards) == {id_: ids.count(id_) for id_ in ids}
    if len(set(ids)) == len(ids):
        assert not table.part(0).counts, "one each is not spelt out"


@given(id_lists, shard_counts)
def test_rows_come_back_in_the_callers_order(ids: list[int], shards: int) -> None:
    (table,) = make_batch({"a": np.array(ids, np.int64)}, CONFIGS, routing(shards)).tables
    rows_UD = np.repeat((table.unique_U % 1009).astype(np.float32)[:, None], DIM, axis=1)
    assert table.expand(rows_UD)[:, 0].tolist() == [id_ % 1009 for id_ in ids]
    assert table.expand_flags(table.unique_U > 0).tolist() == [id_ > 0 for id_ in ids]


@given(id_lists, shard_counts)
def test_gradients_of_duplicates_are_summed_and_go_with_their_id(ids: list[int], shards: int) -> None:
    (table,) = make_batch({"a": np.array(ids, np.int64)}, CONFIGS, routing(shards)).tables
    grads = np.repeat(2.0 ** np.arange(len(ids), dtype=np.float32)[:, None] % 8191, DIM, axis=1)
    grouped_UD = np.asarray(Outgoing.of(table, grads, TableFormat()).by_shard(table).grads)
    expected: dict[int, float] = {}
    for id_, grad in zip(ids, grads[:, 0].tolist(), strict=True):
        expected[id_] = expected.get(id_, 0.0) + grad
    assert dict(zip(table.split.ids_N.tolist(), grouped_UD[:, 0].tolist(), strict=True)) == expected


@given(id_lists)
def test_rerouting_sends_every_id_to_its_new_shard(ids: list[int]) -> None:
    batch = make_batch({"a": ids}, CONFIGS, routing(1))
    fresh = make_batch({"a": ids}, CONFIGS, routing(3))
    moved = batch.split_by(fresh.routing)
    assert moved.shards == fresh.shards
    assert [moved.ids(shard) for shard in range(3)] == [fresh.ids(shard) for shard in range(3)]
    assert batch.routing.shards == routing(1).shards, "the batch as it was is as it was"
    assert fresh.split_by(routing(3)) is fresh


def test_ids_with_counts_are_unique_already() -> None:
    (table,) = make_batch({"a": [3, 1]}, CONFIGS, routing(2), {"a": [10, 20]}).tables
    assert sent(table, 2) == {3: 10, 1: 20}
    with pytest.raises(ps.DuplicateIds, match="must be unique"):
        make_batch({"a": [3, 3]}, CONFIGS, routing(2), {"a": [10, 20]})
    with pytest.raises(ps.LengthMismatch):
        make_batch({"a": [3, 1]}, CONFIGS, routing(2), {"a": [10]})


def test_a_shard_is_asked_if_any_table_has_ids_for_it() -> None:
    batch = make_batch({"a": [], "b": [1]}, CONFIGS, routing(2))
    (asked,) = batch.shards
    assert [part.table for part in batch.ids(asked).tables] == ["a", "b"], "in the caller's order"


def test_dense_ids_go_as_gaps_as_long_as_a_shard_unpacks_so_many() -> None:
    """Of several tables, the largest go as they are first."""
    batch = make_batch({"a": np.arange(200_000), "b": np.arange(150_000)}, CONFIGS, routing(1), None, True)
    large, small = batch.ids(0).tables
    assert len(large.ids) == 8 * 200_000
    assert not large.sorted_ids
    assert 0 < len(small.sorted_ids) < 25_000
    assert may_be_unpacked([large, small])
    few = make_batch({"a": np.arange(100_000), "b": np.arange(150_000)}, CONFIGS, routing(1), None, True)
    assert all(part.sorted_ids and not part.ids for part in few.ids(0).tables)
