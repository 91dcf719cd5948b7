"""Checkpoints that a service makes by itself; which are kept, and what of the logs may go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import ps
from ps.durability.checkpoint.catalog import Checkpoints
from ps.server.shard_server import ShardServer
from tests.clocks import ByHand
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import block, summing
from tests.waiting import until

EVERY_S = 60.0
MANY = np.arange(120_000)
"""A push of these is more than a segment of the log."""


@contextmanager
def service(path: Path, clock: ByHand, **settings: object) -> Iterator[tuple[LoopbackCluster, ps.Client]]:
    config = QUIET.having(checkpoint={"path": str(path), "every_s": EVERY_S, **settings})
    with LoopbackCluster(2, config, clock=clock) as cluster, ps.connect(cluster.address) as client:
        yield cluster, client


def made(path: Path) -> list[str]:
    return [each.name for each in Checkpoints(str(path)).list()]


def test_one_is_made_each_time_that_it_is_due_and_a_failure_is_tried_again_next_time(tmp_path: Path) -> None:
    clock = ByHand()
    with service(tmp_path / "here", clock) as (cluster, client):
        figures = cluster.coordinator.checkpoints.figures
        client.create_table(summing())
        for number in (1, 2):
            clock.now += EVERY_S
            until(lambda number=number: figures.completed == number)
            assert len(made(tmp_path / "here")) == number
        clock.now += EVERY_S / 2
        client.checkpoint()  # this one counts, too
        clock.now += EVERY_S / 2
        client.push("t", [1], block([1]))
        assert figures.completed == 3
        assert figures.age_s == EVERY_S / 2
        (tmp_path / "away").mkdir()
        (tmp_path / "here").rename(tmp_path / "away" / "here")
        (tmp_path / "here").touch()  # a file where the folder should be
        clock.now += EVERY_S / 2
        until(lambda: figures.failures == 1)
        (tmp_path / "here").unlink()
        (tmp_path / "away" / "here").rename(tmp_path / "here")
        clock.now += EVERY_S
        until(lambda: figures.completed == 4)
        assert figures.age_s == 0
        assert figures.nbytes > 0


def test_the_only_shard_keeps_the_rhythm_itself(tmp_path: Path) -> None:
    clock = ByHand()
    config = QUIET.having(checkpoint={"path": str(tmp_path), "every_s": EVERY_S})
    with ShardServer(0, config, clock=clock) as server, ps.connect(server.address) as client:
        client.create_table(summing())
        clock.now += EVERY_S
        until(lambda: server.checkpoints.service.figures.completed == 1)
        assert len(made(tmp_path)) == 1


def test_every_so_many_have_all_rows_and_so_many_are_kept_with_those_they_build_on(tmp_path: Path) -> None:
    with service(tmp_path, ByHand(), keep=2, full_every=3) as (_, client):
        client.create_table(summing())
        names = []
        for step in range(7):
            client.push("t", [step], block([step]))
            names.append(client.checkpoint())
        bases = {each.name: each.base for each in Checkpoints(str(tmp_path)).list()}
    # full: 0, 3, 6; kept: 5 and 6, and what 5 builds on
    assert bases == {names[3]: None, names[4]: names[3], names[5]: names[4], names[6]: None}


def test_another_folder_is_left_alone_and_no_log_goes_for_it(tmp_path: Path) -> None:
    config = QUIET.having(
        checkpoint={"path": str(tmp_path / "own"), "keep": 1, "full_every": 1},
        log={"mode": "interval", "path": tmp_path / "log", "segment_bytes": 1 << 20},
    )
    with LoopbackCluster(2, config) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())

        def oldest() -> list[int]:
            return [shard["log"]["oldest_version"] for shard in client.stats()["shards"]]

        for _ in range(3):
            client.push("t", MANY, block(MANY))
            client.checkpoint(tmp_path / "other")
        assert len(made(tmp_path / "other")) == 3
        assert oldest() == [1, 1], "the service itself comes back from its own folder"
        first = client.checkpoint()
        behind = oldest()
        assert min(behind) > 1
        client.push("t", MANY, block(MANY))
        client.checkpoint()
        assert made(tmp_path / "own") != [first]
        assert len(made(tmp_path / "own")) == 1
        assert min(oldest()) > max(behind)
        versions = [server.shard.version for server in cluster.servers]
        assert all(at <= version + 1 for at, version in zip(oldest(), versions, strict=True))


def test_a_checkpoint_of_another_service_of_this_name_takes_no_log_away(tmp_path: Path) -> None:
    """Its versions are of another history, and may be any."""
    config = QUIET.having(
        checkpoint={"path": str(tmp_path), "keep": 9},
        log={"mode": "interval", "path": tmp_path / "log", "segment_bytes": 1 << 20},
    )
    with LoopbackCluster(2, config) as cluster, ps.connect(cluster.address) as client:
        with service(tmp_path, ByHand(), keep=9) as (_, other):
            other.create_table(summing())
            for step in range(40):
                other.push("t", MANY[:100], block(MANY[:100] + step))
            other.checkpoint()
        client.create_table(summing())
        client.push("t", MANY, block(MANY))
        client.checkpoint()
        client.push("t", MANY, block(MANY))
        client.push("t", MANY, block(MANY))
        client.checkpoint()
        assert all(shard["log"]["oldest_version"] <= 3 for shard in client.stats()["shards"])
        assert cluster.servers[0].shard.version == 4
