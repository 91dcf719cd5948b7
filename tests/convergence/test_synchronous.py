"""Two trainers in synchronous mode are one with the large batch, up to the rounding of sums in another order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import ps
from tests.clusters import LoopbackCluster
from worker.report.metrics import Progressive
from worker.report.shown import Share
from worker.train.ranks import run_ranks
from worker.train.run import ALONE, in_order, run
from worker.train.settings import Data, Settings

pytestmark = pytest.mark.slow
ROWS = 40 * 256
ONE = Settings(data=Data("synthetic", rows=ROWS), dim=4, batch_size=256, swap_fraction=0.0)
TWO = replace(ONE, batch_size=128, mode="synchronous")
ROUNDING = 1e-4
"""Of a probability. 2e-7 was found over 40 steps; of trainers that do not wait for each other 0.1."""


def predictions(shares: list[Share], settings: Settings) -> Progressive:
    return in_order(shares, settings.batch_size)


@pytest.fixture(scope="module")
def alone() -> Progressive:
    with LoopbackCluster(2, ps.ServiceConfig(watching={"metrics": False})) as cluster:
        return predictions([run(ALONE, ONE, cluster.address)], ONE)


def of_two(settings: Settings) -> tuple[list[Share], list[int], Progressive]:
    """The shares, the shards' pushes, the predictions."""
    with LoopbackCluster(2, ps.ServiceConfig(watching={"metrics": False})) as cluster:
        shares = run_ranks(2, run, settings, cluster.address)
        with ps.connect(cluster.address) as client:
            pushes = [shard["pushes"] for shard in client.stats()["shards"]]
    return shares, pushes, predictions(shares, settings)


def furthest(one: Progressive, other: Progressive) -> float:
    """The largest difference of a prediction; those of the last steps are of rows trained in all the steps before."""
    (ours_N, labels_N), (theirs_N, same_N) = one.rows(), other.rows()
    assert (labels_N == same_N).all()
    return float(np.abs(ours_N - theirs_N).max())


def test_synchronous_trainers_predict_what_one_predicts(alone: Progressive) -> None:
    shares, pushes, together = of_two(TWO)
    print(f"furthest: {furthest(alone, together):.1e}")
    assert furthest(alone, together) < ROUNDING
    assert pushes == [40, 40], "one version a step, of both trainers"
    assert shares[0].dense_digest == shares[1].dense_digest


def test_trainers_that_do_not_wait_for_each_other_predict_something_else(alone: Progressive) -> None:
    """So the test above could fail. Bounded by 0 steps, they still push one after the other."""
    shares, pushes, together = of_two(replace(TWO, mode="hybrid", max_staleness=0, pull_ahead=1))
    print(f"furthest: {furthest(alone, together):.1e}")
    assert furthest(alone, together) > 10 * ROUNDING
    assert pushes == [80, 80]
    assert all(max(share.staleness.by_pushes) <= 1 for share in shares)
