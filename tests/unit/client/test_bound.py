"""Handles and versions say nothing under another routing table than their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ps.client.bound import NO_HANDLE, UNKNOWN_VERSIONS, Handle, Versions, same_split
from ps.wire.routing import Routing, ShardInfo

OWN = Routing.even(3, [ShardInfo(0, "a:1"), ShardInfo(1, "b:1")], "c:1")
OTHERS = {
    "epoch": replace(OWN, epoch=4),
    "partitions": replace(OWN, shard_of_partition=np.flip(OWN.shard_of_partition)),
    "fewer shards": Routing.even(3, OWN.shards[:1]),
    "more shards": replace(OWN, shards=(*OWN.shards, ShardInfo(2, "d:1"))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_table_knows_nothing_of_them(name: str) -> None:
    other = OTHERS[name]
    assert not same_split(OWN, other)
    assert [Handle(7, OWN, frozenset({0, 1})).on(shard, other) for shard in (0, 1)] == [0, 0]
    assert [Versions(OWN, {0: 5, 1: 6}).of(shard, other) for shard in (0, 1)] == [0, 0]


def test_a_shard_that_restarted_elsewhere_is_the_same_shard() -> None:
    moved = replace(OWN, shards=(OWN.shards[0], ShardInfo(1, "b:2")), shard_of_partition=OWN.shard_of_partition.copy())
    assert same_split(OWN, moved)
    assert [Handle(7, OWN, frozenset({1})).on(shard, moved) for shard in (0, 1)] == [0, 7]
    assert [Versions(OWN, {1: 6}).of(shard, moved) for shard in (0, 1)] == [0, 6]


def test_what_was_never_prepared_or_read_is_known_nowhere() -> None:
    assert NO_HANDLE.on(0, OWN) == 0
    assert UNKNOWN_VERSIONS.of(0, OWN) == 0
