"""Admission end to end, also where requests and answers are lost and repeated."""

from __future__ import annotations

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.faults import Faults, Rates
from tests.loopback.tables import block, contents, scores, summing


def gated(admission: ps.CountThreshold | ps.Probability) -> ps.TableConfig:
    return summing("g").model_copy(update={"admission": admission})


def refused(client: ps.Client) -> int:
    return sum(shard["tables"]["g"]["rows_refused"] for shard in client.stats()["shards"])


def test_an_id_gets_a_row_with_the_push_that_reaches_the_threshold(client: ps.Client) -> None:
    client.create_table(gated(ps.CountThreshold(min_count=3)))
    client.push("g", [1, 2, -5], block([1, 1, 1]))
    client.push("g", [1, -5], block([1, 1]))
    assert client.size("g") == 0
    rows, exists = client.pull("g", [1, 2], return_exists=True)
    assert not rows.any()
    assert not exists.any()
    client.push("g", [9, 1, 2, -5], block([8, 4, 2, 1]))
    assert contents(client, "g") == {1: [-4.0] * 4, -5: [-1.0] * 4}
    assert refused(client) == 3 + 2 + 2
    assert client.memory_usage()


def test_a_share_of_new_ids_gets_in_at_each_push(client: ps.Client) -> None:
    client.create_table(gated(ps.Probability(p=0.5)))
    sizes = []
    for _ in range(3):
        client.push("g", np.arange(2000), block(np.ones(2000)))
        sizes.append(client.size("g") / 2000)
    assert sizes == pytest.approx([0.5, 0.75, 0.875], abs=0.05)
    assert refused(client) == pytest.approx(2000 * (0.5 + 0.25 + 0.125), rel=0.1)


def test_pushes_that_arrive_twice_are_counted_once(cluster: LoopbackCluster) -> None:
    faults = Faults(1, Rates(drop_response=0.3, repeat=0.3))
    config = gated(ps.CountThreshold(min_count=30)).model_copy(update={"importance": ps.Importance(external=1)})
    ids = np.arange(12)
    with ps.Client(Connection(cluster.address, faults.open, Hurried())) as client:
        client.create_table(config, exist_ok=True)
        for _ in range(29):
            client.push("g", ids, block(np.ones(12)))
        assert client.size("g") == 0
        client.push("g", ids, block(np.ones(12)))
        assert contents(client, "g") == {id_: [-1.0] * 4 for id_ in ids.tolist()}
        for _ in range(20):
            assert client.report_importance("g", ids, np.ones(12)).all()
        assert scores(client, "g") == dict.fromkeys(ids.tolist(), 21.0)
        assert sum(shard["repeated_pushes"] for shard in client.stats()["shards"]) >= 10
