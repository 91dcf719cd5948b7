"""The file that tells Prometheus where the shards are, and what the coordinator says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.cluster.coordinator.discovery import Discovery, targets
from ps.wire.routing import Routing, ShardInfo
from tests.clusters import LoopbackCluster
from tests.loopback.scrape import scrape_at, value

SHARDS = [ShardInfo(i, f"h:{i}", f"h:{90 + i}") for i in range(3)]


def labels_by_target(path: Path) -> dict[str, dict[str, str]]:
    """As Prometheus reads it."""
    return {target: group["labels"] for group in json.loads(path.read_text()) for target in group["targets"]}


def test_the_file_follows_the_routing_table_and_goes_with_the_service(tmp_path: Path) -> None:
    config = ps.ServiceConfig(watching={"metrics": False, "discovery_path": tmp_path / "targets"})
    coordinator = Coordinator(config, service="ads")
    try:
        path = tmp_path / "targets" / "ads.json"
        assert not path.exists(), "nobody is there yet"
        coordinator.assemble(SHARDS)
        assert labels_by_target(path) == {
            f"h:{90 + i}": {"cluster": "ads", "role": "shard", "shard": str(i)} for i in range(3)
        }
        coordinator.replace_shard(replace(SHARDS[1], metrics_address="other:5", state="STATE_LOST"))
        assert set(labels_by_target(path)) == {"h:90", "other:5", "h:92"}
        assert labels_by_target(path)["other:5"]["shard"] == "1", "its series go on"
        assert [file.name for file in path.parent.iterdir()] == ["ads.json"], "no half-written file is left"
    finally:
        coordinator.stop()
    assert not path.exists()


def test_a_coordinator_that_comes_back_writes_the_file_anew(tmp_path: Path) -> None:
    config = ps.ServiceConfig(watching={"discovery_path": tmp_path})
    with LoopbackCluster(2, config) as cluster:
        path = tmp_path / "default.json"
        path.unlink()
        fresh = Coordinator(config)
        try:
            fresh.adopt([server.report for server in cluster.servers], 2)
            shards = {server.metrics_address for server in cluster.servers}
            assert set(labels_by_target(path)) == shards | {fresh.metrics_address}
            assert labels_by_target(path)[fresh.metrics_address] == {"cluster": "default", "role": "coordinator"}
        finally:
            fresh.stop()


def test_a_shard_without_metrics_is_no_target() -> None:
    routing = Routing.even(1, [SHARDS[0], replace(SHARDS[1], metrics_address="")])
    assert [group["targets"] for group in targets("s", routing, "")] == [["h:90"]]


def test_a_folder_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    discovery = Discovery(tmp_path / "file", "s")
    discovery.write(Routing.even(1, SHARDS), "")
    assert "discovery_path" in caplog.text
    caplog.clear()
    discovery.remove()
    assert "discovery_path" in caplog.text


def test_the_coordinator_says_how_its_shards_fare() -> None:
    with LoopbackCluster(2) as cluster, ps.connect(cluster.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=4))
        lost = replace(cluster.servers[1].info, state="STATE_LOST")
        cluster.coordinator.replace_shard(lost)
        found = scrape_at(cluster.coordinator.metrics_address)
    assert value(found, "ps_shards", state="SERVING") == value(found, "ps_shards", state="STATE_LOST") == 1
    assert value(found, "ps_tables") == 1
    assert value(found, "ps_routing_epoch") == cluster.coordinator.routing.epoch
    assert value(found, "ps_rpc_total", method="CreateTable", code="OK") == 1
    assert value(found, "process_resident_memory_bytes") > 1 << 20
