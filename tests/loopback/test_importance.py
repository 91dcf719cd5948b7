"""What makes a row important, end to end: in process, over gRPC, and with rows on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ps
from ps.server.shard_server import ShardServer
from ps.shard import Shard
from tests.loopback.tables import DIM, block, scores, weighing
from tests.waiting import until


def test_positives_come_with_a_push_and_those_of_duplicates_are_summed(client: ps.Client) -> None:
    client.create_table(weighing(frequency=1, positives=10))
    client.push("w", [7, 8, 7, 9], block([1, 1, 1, 1]), positives=[1, 0, 2, 1])
    step = client.prepare({"w": [[8, 7], [8, 6]]})
    step.push({"w": block([[1, 1], [1, 1]])}, positives={"w": [[1, 0], [1, 0]]})
    assert scores(client, "w") == {7: 32.0, 8: 22.0, 9: 11.0, 6: 1.0}
    with pytest.raises(ps.LengthMismatch):
        client.push("w", [7, 8], block([1, 1]), positives=[1])
    with pytest.raises(ps.LengthMismatch, match="positives for tables"):
        client.prepare({"w": [7]}).push({"w": block([1])}, positives={"other": [1]})


def test_attribution_is_of_the_value_before_the_update(client: ps.Client) -> None:
    client.create_table(weighing(frequency=0, attribution=0.5))
    client.push("w", [1, 2], block([3, 4]))
    assert scores(client, "w") == {1: 0.0, 2: 0.0}, "values were 0"
    client.push("w", [1], block([2]))
    assert scores(client, "w") == {1: 0.5 * 2 * 3 * DIM, 2: 0.0}


def test_recency_is_a_floor_and_alone_it_is_the_order_of_the_last_push(client: ps.Client) -> None:
    client.create_table(weighing(frequency=1, recency=3))
    for _ in range(5):
        client.push("w", [1], block([1]))
    client.push("w", [2], block([1]))
    assert scores(client, "w") == {1: 7.0, 2: 3.0}


def test_no_score_is_ever_infinite(client: ps.Client) -> None:
    weights = dict.fromkeys(("occurrences", "positives", "attribution", "external", "recency"), 3e38)
    client.create_table(weighing(frequency=3e38, **weights))
    for _ in range(3):
        client.push("w", [1], block([1e30]), positives=[2**32 - 1])
    client.report_importance("w", [1, 1], [3e38, 3e38])
    assert np.isfinite(scores(client, "w")[1])


def test_reported_scores_reach_the_rows_that_exist(client: ps.Client) -> None:
    client.create_table(weighing(frequency=1, external=2))
    client.push("w", range(100), block(range(100)))
    assert client.report_importance("w", [[3, 500], [4, 3]], [[1, 9], [0.5, 2]]).tolist() == [
        [True, False],
        [True, True],
    ]
    found = scores(client, "w")
    assert (found[3], found[4], found[5], len(found)) == (7.0, 2.0, 1.0, 100)
    np.testing.assert_array_equal(client.pull("w", [3]), -block([3]))


@pytest.mark.parametrize(("given", "error"), [([-1], ps.InvalidArgument), ([np.nan], ps.InvalidArgument)])
def test_a_score_that_is_none_is_refused(client: ps.Client, given: list[float], error: type[Exception]) -> None:
    client.create_table(weighing(external=1))
    with pytest.raises(error, match="finite and not negative"):
        client.report_importance("w", [1], given)
    with pytest.raises(ps.LengthMismatch):
        client.report_importance("w", [1], [1, 2])
    client.create_table(ps.TableConfig(name="deaf", dim=2))
    with pytest.raises(ps.InvalidArgument, match="Importance\\(external="):
        client.report_importance("deaf", [1], [1])


@pytest.mark.parametrize("signal", ["positives", "attribution", "external"])
def test_rows_of_a_high_score_stay_in_ram_and_one_on_disk_can_be_reported(tmp_path: Path, signal: str) -> None:
    config = weighing(frequency=1, **{signal: 100}).model_copy(update={"initializer": ps.Constant(value=1.0)})
    ids, chosen = np.arange(2000), np.arange(0, 2000, 8)
    settings = ps.ServiceConfig(watching={"metrics": False}, disk={"path": tmp_path})
    with ShardServer(0, settings) as server, ps.connect(server.address) as client:
        client.create_table(config)
        gradient = np.where(ids % 8 == 0, 1.0, 0.0) if signal == "attribution" else np.zeros(len(ids))
        positives = (ids % 8 == 0).astype(np.uint32) if signal == "positives" else None
        client.push("w", ids, block(gradient), positives=positives)
        if signal == "external":
            client.report_importance("w", chosen, np.ones(len(chosen)))
        others = ids[ids % 8 != 0]
        until(lambda: _moved_down(client, server.shard, others))
        assert _in_ram(server.shard, chosen) == len(chosen)
        if signal == "external":
            below = others[server.shard.engine.run(lambda: server.shard.tables["w"].find(others)) < 0][:3]
            assert client.report_importance("w", [*below, below[0]], [1, 2, 3, 4]).all()
            found = scores(client, "w")
            assert [found[id_] for id_ in below.tolist()] == pytest.approx([501, 201, 301], rel=0.05)
            assert len(found) == len(ids)


def _moved_down(client: ps.Client, shard: Shard, others: np.ndarray) -> bool:
    """Whether about half of all rows have gone down; a push that changes nothing lets the next slice go."""
    client.push("w", others[:1], block([0]))
    return _in_ram(shard, np.arange(2000)) <= 1020


def _in_ram(shard: Shard, ids_N: np.ndarray) -> int:
    return int((shard.engine.run(lambda: shard.tables["w"].find(ids_N)) >= 0).sum())
