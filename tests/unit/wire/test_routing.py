"""id -> partition -> shard: pure, complete, and the same for everyone who asks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.config import PARTITIONS
from ps.errors import InvalidArgument
from ps.kernels.reference.index import hashing as specification
from ps.v1 import control_pb2
from ps.wire.routing import Routing, ShardInfo, split_by_shard


def even(n: int, epoch: int = 1) -> Routing:
    return Routing.even(epoch, [ShardInfo(i, f"host:{i}") for i in range(n)], coordinator="host:c")


@pytest.mark.parametrize("n", [*range(1, 8), 4095, 4096])
def test_every_partition_has_an_owner_and_shares_differ_by_one_at_most(n: int) -> None:
    owners = even(n).shard_of_partition
    assert len(owners) == PARTITIONS
    shares = np.bincount(owners, minlength=n)
    assert len(shares) == n
    assert shares.max() - shares.min() <= 1
    assert (np.diff(owners) >= 0).all(), "contiguous runs"


@pytest.mark.parametrize("n", range(1, 8))
@given(ids_N=arrays.arrays(np.int64, st.integers(0, 60)))
def test_a_split_is_a_stable_permutation(n: int, ids_N: np.ndarray) -> None:
    split = split_by_shard(ids_N, even(n))
    order_N = np.arange(len(ids_N)) if split.order_N is None else split.order_N
    assert sorted(order_N.tolist()) == list(range(len(ids_N)))
    np.testing.assert_array_equal(ids_N[order_N], split.ids_N)
    assert (split.starts[0], split.starts[-1], len(split.starts)) == (0, len(ids_N), n + 1)
    for shard in range(n):
        assert (np.diff(order_N[split.of(shard)]) > 0).all(), "ids of one shard stay in the order given"


@pytest.mark.parametrize("n", range(1, 8))
@given(ids_N=arrays.arrays(np.int64, st.integers(0, 60)))
def test_a_split_agrees_with_the_owner_of_the_specified_partition(n: int, ids_N: np.ndarray) -> None:
    """Agreement of all: whatever the batch, an id goes where the table says for its partition."""
    routing = even(n)
    partition_N = np.empty(len(ids_N), np.int32)
    specification.partitions(ids_N, partition_N)
    split = split_by_shard(ids_N, routing)
    for shard in range(n):
        expected = ids_N[routing.shard_of_partition[partition_N] == shard]
        np.testing.assert_array_equal(split.ids_N[split.of(shard)], expected)


def test_ids_of_any_pattern_spread_over_the_shards() -> None:
    """Sequential, strided and high-bit ids all give each of 7 shards its seventh, within a tenth."""
    n = 70_000
    for ids_N in (np.arange(n), np.arange(n) * 4096, np.arange(n) << 40, -np.arange(n) - 1):
        sizes = np.diff(split_by_shard(ids_N, even(7)).starts)
        assert sizes.min() > 9_000
        assert sizes.max() < 11_000


def test_ids_that_agree_in_their_low_32_bits_are_told_apart() -> None:
    low = np.int64(5)
    ids_N = low + (np.arange(1000, dtype=np.int64) << 32)
    assert np.diff(split_by_shard(ids_N, even(4)).starts).min() > 150


@given(st.integers(1, 7), st.integers(0, 2**64 - 1))
def test_a_routing_table_comes_back_from_its_message(n: int, epoch: int) -> None:
    routing = even(n, epoch)
    message = control_pb2.Routing.FromString(routing.to_proto().SerializeToString())
    back = Routing.from_proto(message)
    assert (back.epoch, back.shards, back.coordinator) == (routing.epoch, routing.shards, routing.coordinator)
    np.testing.assert_array_equal(back.shard_of_partition, routing.shard_of_partition)


@pytest.mark.parametrize(
    "owners",
    [
        b"",
        bytes(2 * PARTITIONS - 2),
        bytes(2 * PARTITIONS + 2),
        bytes(2 * PARTITIONS - 1),
        np.full(PARTITIONS, 2, "<u2").tobytes(),
    ],
    ids=["none", "too few", "too many", "half a number", "an unknown shard"],
)
def test_a_table_that_does_not_cover_every_partition_is_refused(owners: bytes) -> None:
    shards = [control_pb2.ShardInfo(shard_id=i) for i in range(2)]
    with pytest.raises(InvalidArgument):
        Routing.from_proto(control_pb2.Routing(epoch=1, shards=shards, shard_of_partition=owners))


def test_a_table_without_shards_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Routing.from_proto(control_pb2.Routing(shard_of_partition=bytes(2 * PARTITIONS)))
