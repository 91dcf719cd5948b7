"""Restores with logs: point in time by an old log, and a new log that begins behind what was restored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import ps
from ps.durability.checkpoint.catalog import Checkpoints
from ps.server.shard_server import ShardServer
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block, contents, summing
from tests.waiting import until

IDS = np.arange(100)


def logging_into(log: Path, **checkpoint: object) -> ps.ServiceConfig:
    return QUIET.having(log={"mode": "sync", "path": log}, checkpoint=checkpoint)


@pytest.fixture
def old(tmp_path: Path) -> tuple[str, str]:
    """Checkpoints of the only shard at versions 2 and 5, and its log up to version 8: row = minus the pushes."""
    config = logging_into(tmp_path / "old-log")
    with ShardServer(0, config) as server, ps.connect(server.address) as client:
        client.create_table(summing())
        for version in range(2, 9):
            client.push("t", IDS, block(np.ones(len(IDS))))
            assert server.shard.version == version
            if version in (2, 5):
                client.checkpoint(tmp_path / "checkpoints", full=True)
    return str(tmp_path / "checkpoints"), str(tmp_path / "old-log")


def rows(client: ps.Client) -> set[float]:
    return set(client.pull("t", IDS).reshape(-1).tolist())


@pytest.mark.parametrize(("at", "version"), [(4, 4), (5, 5), (7, 7), ({0: 8}, 8), (None, 8)])
def test_any_version_that_checkpoints_and_log_have(
    old: tuple[str, str], at: int | dict[int, int] | None, version: int
) -> None:
    path, log = old
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        restored = client.restore(path, at=at, log=log)
        assert restored["versions"] == [server.shard.version] == [version]
        assert rows(client) == {1.0 - version}
        client.push("t", IDS, block(np.ones(len(IDS))))


def test_versions_that_there_are_not(old: tuple[str, str], tmp_path: Path) -> None:
    path, log = old
    newest = Checkpoints(path).list()[-1].name
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        with pytest.raises(ps.InvalidArgument, match=r"version 9 is wanted, and the log .* ends with version 8"):
            client.restore(path, at=9, log=log)
        with pytest.raises(ps.InvalidArgument, match="version 4 is wanted, and the checkpoint has version 5"):
            client.restore(f"{path}/{newest}", at=4, log=log)
        with pytest.raises(ps.NotFound, match="from before versions"):
            client.restore(path, at=1, log=log)
        with pytest.raises(ps.NotFound, match=r"log\.path"):
            client.restore(path, log=tmp_path / "nowhere")
        with pytest.raises(ps.InvalidArgument, match="pass log"):
            client.restore(path, at=4)
        with pytest.raises(ps.InvalidArgument, match="there are shards 0 to 0"):
            client.restore(path, at={1: 4}, log=log)
        with pytest.raises(ps.InvalidArgument, match="behind an exact restore"):
            client.restore(path, log=log, values_only=True)
        assert server.shard.version == 0, "none of these has begun"
        assert client.restore(path, at=6, log=log)["versions"] == [6]
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        with pytest.raises(ps.InvalidArgument, match="give each its own"):
            client.restore(path, at=4, log=log)
        with pytest.raises(ps.InvalidArgument, match="into 1 shards"):
            client.restore(path, log=log)


def test_a_new_log_begins_behind_what_was_restored_which_is_durable(old: tuple[str, str], tmp_path: Path) -> None:
    path, log = old
    with ShardServer(0, logging_into(tmp_path / "new-log")) as server, ps.connect(server.address) as client:
        with pytest.raises(ps.ConfigError, match=r"there is no checkpoint\.path"):
            client.restore(path)
        assert server.shard.version == 0
    config = logging_into(tmp_path / "log", path=str(tmp_path / "own"))
    with ShardServer(0, config) as server, ps.connect(server.address) as client:
        client.restore(path, at=7, log=log)
        (saved,) = Checkpoints(str(tmp_path / "own")).list()
        assert Checkpoints(str(tmp_path / "own")).manifest(saved.name).parts[0].version == 7
        (shard,) = client.stats()["shards"]
        assert shard["log"]["oldest_version"] == 8
        assert shard["log"]["mode"] == "sync"
        client.push("t", IDS, block(np.ones(len(IDS))))
        assert server.shard.commit.log.stats()["synced"] == 8  # type: ignore[index]
        found = contents(client, "t")
        assert found[0] == [-7.0] * DIM
    with ShardServer(0, config) as server, ps.connect(server.address) as client:
        assert server.shard.version == 8, "it comes back by itself"
        assert contents(client, "t") == found
    # all of it is there: that checkpoint, and the new log behind it
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        client.restore(tmp_path / "own", log=tmp_path / "log")
        assert server.shard.version == 8
        assert contents(client, "t") == found


def test_two_shards_each_to_a_version_of_its_own(tmp_path: Path) -> None:
    with (
        LoopbackCluster(2, logging_into(tmp_path / "log", path=str(tmp_path / "own"))) as cluster,
        ps.connect(cluster.address) as client,
    ):
        client.create_table(summing())
        name = client.checkpoint()
        for _ in range(3):
            client.push("t", IDS, block(np.ones(len(IDS))))
    again = logging_into(tmp_path / "again", path=str(tmp_path / "own"))
    with LoopbackCluster(2, again) as cluster, ps.connect(cluster.address) as client:
        assert [server.shard.version for server in cluster.servers] == [1, 1], "it goes on from its own checkpoint"
        with pytest.raises(ps.TableExists, match="restore into a new one"):
            client.restore(tmp_path / "own" / name, at={0: 2, 1: 4}, log=tmp_path / "log")
    config = logging_into(tmp_path / "new", path=str(tmp_path / "others"))
    with LoopbackCluster(2, config) as cluster, ps.connect(cluster.address) as client:
        assert client.restore(tmp_path / "own" / name, at={0: 2, 1: 4}, log=tmp_path / "log")["versions"] == [2, 4]
        assert rows(client) == {-1.0, -3.0}
        client.push("t", IDS, block(np.ones(len(IDS))))
        assert [server.shard.version for server in cluster.servers] == [3, 5]


def test_what_only_some_shards_were_restored_from_is_not_saved_nor_opened(tmp_path: Path) -> None:
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.push("t", IDS, block(np.ones(len(IDS))))
        name = client.checkpoint(tmp_path / "from")
    state = tmp_path / "from" / name / "shard-1" / "state"
    whole = state.read_bytes()
    state.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    config = logging_into(tmp_path / "log", path=str(tmp_path / "own"))
    with LoopbackCluster(2, config) as cluster, ps.connect(cluster.address) as client:
        maker = cluster.coordinator.checkpoints._maker
        until(lambda: failed_with(client, tmp_path / "from") and maker.half_restored is not None)
        with pytest.raises(ps.InvalidArgument, match=f"restore of checkpoint {name} has failed on a shard"):
            client.checkpoint()
        assert cluster.servers[0].service.closed is not None
        assert not Checkpoints(str(tmp_path / "own")).list()
        state.write_bytes(whole)
        client.restore(tmp_path / "from")
        assert rows(client) == {-1.0}
        client.checkpoint()


def failed_with(client: ps.Client, path: Path) -> bool:
    with pytest.raises(ps.CheckpointCorrupt, match="shard 1"):
        client.restore(path)
    return True
