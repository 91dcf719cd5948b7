"""A shard that is a service by itself comes back from its checkpoint and what its log has behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import ps
from ps.server.shard_server import ShardServer

IDS, DIM = np.arange(5000), 64


def config(log: Path, checkpoints: Path) -> ps.ServiceConfig:
    return ps.ServiceConfig().having(
        watching={"metrics": False},
        log={"mode": "interval", "path": log, "segment_bytes": "1MiB"},
        checkpoint={"path": str(checkpoints)},
    )


def test_a_lone_shard_whose_log_was_cut_comes_back_from_its_own_checkpoint(tmp_path: Path) -> None:
    checkpoints, ones = tmp_path / "checkpoints", np.ones((len(IDS), DIM), np.float32)
    with ShardServer(0, config(tmp_path / "log", checkpoints)) as server, ps.connect(server.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=DIM))
        for _ in range(10):
            client.push("t", IDS, ones)
        client.checkpoint()
        assert client.stats()["shards"][0]["log"]["oldest_version"] > 1, "the checkpoint has what was before"
        client.push("t", IDS, ones)
        expected_ND, version = client.pull("t", IDS), server.shard.version
        shutil.copytree(tmp_path / "log", tmp_path / "killed")  # what a kill would leave now
    with (
        ShardServer(0, config(tmp_path / "killed", checkpoints)) as server,
        ps.connect(server.address) as client,
    ):
        assert server.shard.version == version
        np.testing.assert_array_equal(client.pull("t", IDS), expected_ND)
