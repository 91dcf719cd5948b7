"""A shard that went on without a checkpoint that was there never has that one's writes under its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.errors import LogCorrupt, RolledBack, StateLost
from tests.unit.durability.test_coming_back import IDS, ONES, TABLE, Cluster, running, settings


def checkpoints_of_two_pushes(client: ps.Client) -> list[str]:
    client.create_table(TABLE)
    names = []
    for _ in range(2):
        client.push("t", IDS, ONES)
        names.append(client.checkpoint())
    return names


def damage(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return whole


@pytest.mark.parametrize("file", ["shard-1/state", "shard-1/part.json", "manifest.json"])
def test_a_checkpoint_that_was_passed_over_and_repaired_is_no_start(file: str, tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        newest = tmp_path / "checkpoints" / checkpoints_of_two_pushes(client)[1] / file
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        whole = damage(newest)
        assert cluster.back(1).info.came_back_at == 2
        with pytest.raises(RolledBack):
            client.pull("t", IDS)
        for _ in range(3):
            client.push("t", IDS, 10 * ONES)
        values = client.pull("t", IDS)
        newest.write_bytes(whole)
        for _ in range(2):
            cluster.die(1)
            assert cluster.back(1).info.came_back_at == 5
            np.testing.assert_array_equal(client.pull("t", IDS), values)
        client.checkpoint()  # of its own history
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        assert cluster.back(1).info.came_back_at == 5
        np.testing.assert_array_equal(client.pull("t", IDS), values)


def test_what_is_of_another_history_is_forgotten_when_it_is_removed(tmp_path: Path) -> None:
    noted = tmp_path / "log" / "shard-1" / "service.json"
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        newest = checkpoints_of_two_pushes(client)[1]
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        damage(tmp_path / "checkpoints" / newest / "shard-1" / "state")
        cluster.back(1)
        assert json.loads(noted.read_text())["foreign"] == [newest]
        shutil.rmtree(tmp_path / "checkpoints" / newest)
        cluster.die(1)
        cluster.back(1)
        assert json.loads(noted.read_text())["foreign"] == []


@pytest.mark.parametrize("file", ["shard-0/state", "manifest.json"])
def test_a_service_without_its_logs_and_with_damaged_checkpoints_does_not_begin_empty(
    file: str, tmp_path: Path
) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        names = checkpoints_of_two_pushes(client)
    shutil.rmtree(tmp_path / "log")
    for name in names:
        damage(tmp_path / "checkpoints" / name / file)
    with pytest.raises(LogCorrupt, match=rf"there is no log any more.*{names[0]}.*without these checkpoints"):
        Cluster(settings(tmp_path), 2)


def test_a_log_of_which_all_segments_are_gone_is_no_new_one(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        cluster.die(1)
        for segment in (tmp_path / "log" / "shard-1").glob("*.log"):
            segment.unlink()
        with pytest.raises(LogCorrupt, match=r"there is no log any more.*there is no checkpoint"):
            cluster.server(1)


def test_a_shard_that_has_lost_its_state_says_so_at_each_start(tmp_path: Path) -> None:
    with running(settings(tmp_path)) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        cluster.die(1)
        shutil.rmtree(tmp_path / "log" / "shard-1")
        for _ in range(2):
            assert cluster.back(1).info.state == "STATE_LOST"
            with pytest.raises(StateLost, match="its rows are gone"):
                client.pull("t", IDS)
            cluster.die(1)
        cluster.back(1)


@pytest.mark.parametrize("kind", ["checkpoint", "stop"])
def test_what_is_said_to_be_there_is_never_ahead_of_a_log_that_the_host_keeps(kind: str, tmp_path: Path) -> None:
    config = settings(tmp_path).having(log={"interval_s": 3600})
    with running(config, 1) as cluster, ps.connect(cluster.address) as client:
        client.create_table(TABLE)
        client.push("t", IDS, ONES)
        shard, recovered = cluster.servers[0].shard, cluster.servers[0]._recovered
        assert recovered is not None
        assert shard.stats()["log"]["synced"] < 2
        if kind == "checkpoint":
            client.checkpoint()
        else:
            recovered.leave(shard)
        assert shard.stats()["log"]["synced"] == 2
