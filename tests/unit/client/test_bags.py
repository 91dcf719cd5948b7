"""A step's bags, parted by shard."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ps
from ps.client.bags import split_bags
from ps.client.batch import make_batch
from ps.wire.bags import PooledBags
from ps.wire.routing import Routing, ShardInfo, split_by_shard

CONFIGS = {"t": ps.TableConfig(name="t", dim=2)}


def routing(shards: int) -> Routing:
    return Routing.even(1, [ShardInfo(number, "") for number in range(shards)])


def cut(positions_P: np.ndarray, lengths_B: np.ndarray) -> list[np.ndarray]:
    """The positions of each bag."""
    return np.split(positions_P, np.cumsum(lengths_B))[:-1]


@given(st.integers(1, 4), st.integers(1, 40), st.lists(st.integers(0, 7), max_size=20), st.integers(0, 2**32))
def test_every_id_of_a_bag_is_on_one_shard_and_in_its_order(
    shards: int, unique: int, lengths: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ids_U = rng.permutation(1000)[:unique]
    positions_P = rng.integers(0, unique, sum(lengths))
    split = split_by_shard(ids_U, routing(shards))
    parts = split_bags(PooledBags(positions_P, np.array(lengths, np.int64)), split)
    found: list[list[list[int]]] = [[] for _ in lengths]
    for shard, part in enumerate(parts):
        assert (part.lengths_R > 0).all()
        assert len(part) == len(part.lengths_R)
        ids_N = split.ids_N[split.of(shard)]
        for bag, where_N in zip(part.bags_R, cut(part.positions_P, part.lengths_R), strict=True):
            found[bag].append(ids_N[where_N].tolist())
    home = {int(id_): shard for shard in range(shards) for id_ in split.ids_N[split.of(shard)]}
    for bag, at_N in enumerate(cut(positions_P, np.array(lengths, np.int64))):
        ids = ids_U[at_N].tolist()
        by_shard = [[id_ for id_ in ids if home[id_] == shard] for shard in range(shards)]
        assert found[bag] == [part for part in by_shard if part]


@pytest.mark.parametrize(
    ("positions", "lengths", "error", "match"),
    [
        ([0.0], [1], ps.DtypeMismatch, "two of integers"),
        ([[0]], [1], ps.LengthMismatch, r"give \[P\] positions"),
        ([0], [2, -1], ps.LengthMismatch, "lengths of 0 and more"),
        ([0, 1], [1], ps.LengthMismatch, "2 positions, but lengths that sum to 1"),
        ([2], [1], ps.InvalidArgument, r"within \[0, 2\)"),
        ([-1], [1], ps.InvalidArgument, r"within \[0, 2\)"),
    ],
)
def test_bags_that_cannot_be_are_refused(
    positions: list[int], lengths: list[int], error: type[ps.PsError], match: str
) -> None:
    bags = PooledBags(np.array(positions), np.array(lengths))
    with pytest.raises(error, match=match):
        make_batch({"t": [5, 6]}, CONFIGS, routing(2), bags={"t": bags})


def test_ids_that_occur_twice_have_no_positions() -> None:
    with pytest.raises(ps.DuplicateIds, match="give each id once"):
        make_batch({"t": [5, 5]}, CONFIGS, routing(2), bags={"t": PooledBags(np.array([0]), np.array([1]))})
