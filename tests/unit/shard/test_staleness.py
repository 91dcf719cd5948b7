"""Staleness: pushes applied between a pull and the push computed from it."""

from __future__ import annotations

import numpy as np
import pytest

from ps.shard import Shard
from ps.shard.staleness import BOUNDS, KEPT, Staleness
from tests.unit.shard.helpers import DIM, a_write, grads_of, ids_of, new_table


@pytest.mark.parametrize(
    ("version", "pulled", "expected"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (1000, 1, 998), (5, 5, 0), (5, 9, 0)]
)
def test_it_is_the_pushes_between_and_never_negative(version: int, pulled: int, expected: int) -> None:
    assert Staleness().of(version, pulled) == expected


def test_writes_that_are_no_pushes_are_not_counted() -> None:
    seen = Staleness()
    for version in (3, 4, 8):
        seen.other(version)
    assert [seen.of(10, pulled) for pulled in range(1, 11)] == [5, 4, 4, 4, 3, 2, 1, 1, 0, 0]


def test_what_it_remembers_is_bounded() -> None:
    seen = Staleness()
    for version in range(2, 3 * KEPT):
        seen.other(version)
    assert seen.of(3 * KEPT, 2 * KEPT) == 0
    assert len(seen._others) <= 2 * KEPT


def test_each_push_is_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    for i, bound in enumerate(BOUNDS):
        seen = Staleness()
        seen.observe(bound)
        assert seen.buckets[i] == 1
        seen.observe(bound + 1)
        assert sum(seen.buckets[: i + 1]) == 1 + (bound + 1 in BOUNDS[: i + 1])
        assert seen.total == 2 * bound + 1


def test_a_shard_tells_each_push_how_stale_it_is(shard: Shard) -> None:
    new_table(shard)
    target, grads = [ids_of("t", [1])], [grads_of("t", np.ones((1, DIM)))]
    for expected_version in (2, 3, 4):
        assert shard.push(a_write(), shard.look_ahead(target), grads).version == expected_version
    pulled = shard.pull(target).head().version
    assert pulled == 4
    assert [shard.push(a_write(), shard.look_ahead(target), grads, pulled).staleness for _ in range(3)] == [0, 1, 2]
    assert shard.staleness.report() == {"pushes": 3, "total": 3, "most": 2}, "of those whose pull is known"
    assert shard.version == 7
    shard.upsert(a_write(), target[0], grads[0].blocks)
    assert shard.push(a_write(), shard.look_ahead(target), grads, 7).staleness == 0, "an upsert is no push"
