"""Staleness: pushes applied between a pull and the push computed from it."""

from __future__ import annotations

import numpy as np
import pytest

from ps.shard import Shard
from ps.shard.staleness import BOUNDS, Staleness
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table


@pytest.mark.parametrize(
    ("version", "pulled", "expected"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (1000, 1, 998), (5, 5, 0), (5, 9, 0)]
)
def test_it_is_the_pushes_between_and_never_negative(version: int, pulled: int, expected: int) -> None:
    assert Staleness().observe(version, pulled) == expected


def test_a_push_whose_pull_is_unknown_is_not_counted() -> None:
    seen = Staleness()
    seen.observe(100, 0)
    assert (sum(seen.buckets), seen.total) == (0, 0)


def test_each_push_is_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    for i, bound in enumerate(BOUNDS):
        seen = Staleness()
        seen.observe(version=bound + 2, pulled_version=1)
        assert seen.buckets[i] == 1
        seen.observe(version=bound + 3, pulled_version=1)
        assert sum(seen.buckets[: i + 1]) == 1 + (bound + 1 in BOUNDS[: i + 1])
        assert seen.total == 2 * bound + 1


def test_a_shard_tells_each_push_how_stale_it_is(shard: Shard) -> None:
    new_table(shard)
    target, grads = [ids_of("t", [1])], [grads_of("t", np.ones((1, DIM)))]
    for expected_version in (1, 2, 3):
        assert shard.push(a_write(), shard.look_ahead(target), grads).version == expected_version
    pulled = shard.pull(target).head().version
    assert pulled == 3
    assert [shard.push(a_write(), shard.look_ahead(target), grads, pulled).staleness for _ in range(3)] == [0, 1, 2]
    assert shard.staleness.total == 3
