"""Several Ray nodes on one machine: shards are spread over those that are for them, one node dies, another comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

import ps
from ps.client.connection.connection import Connection
from ps.cluster.ray import actors
from ps.wire.routing import split_by_shard

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open until the process ends
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray announces its own changes
]

SHARDS = 4
IDS = np.arange(5000)
TABLE = ps.TableConfig(name="u", dim=4, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant())
STORE_BYTES = 100 << 20


def add_shard_node(cluster: Cluster) -> Any:
    """With room for two shards."""
    return cluster.add_node(num_cpus=2, resources={"ps_shard": 2}, object_store_memory=STORE_BYTES)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head with CPUs, but no room for shards."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, "object_store_memory": STORE_BYTES})
    try:
        yield running
    finally:
        ray.shutdown()
        running.shutdown()


def where_shards_are() -> list[tuple[str, int]]:
    """(node, process id) of each."""
    handles = [ray.get_actor(actors.shard_name("spread", i), namespace=actors.NAMESPACE) for i in range(SHARDS)]
    asked = [h.__ray_call__.remote(lambda _: (ray.get_runtime_context().get_node_id(), os.getpid())) for h in handles]
    return ray.get(asked, timeout=60)


def lose(cluster: Cluster, node: Any, pids: list[int]) -> None:
    """All of a machine at once. Left to themselves, its shards would serve until they miss their Ray."""
    cluster.remove_node(node, allow_graceful=False)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_shards_of_a_node_that_dies_come_back_on_another_and_say_that_their_rows_are_gone(cluster: Cluster) -> None:
    first, second = add_shard_node(cluster), add_shard_node(cluster)
    placement = ps.Placement(resources={"ps_shard": 1})
    with (
        ps.launch(SHARDS, name="spread", ray_address=cluster.address, placement=placement) as service,
        ps.Client(connection := Connection(service.address)) as client,
    ):
        found = where_shards_are()
        nodes = [node for node, _ in found]
        assert sorted(nodes) == sorted([first.node_id, second.node_id] * 2), "two on each, none on the head"
        train(service.address)

        client.create_table(TABLE)
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))
        before = connection.routing
        split = split_by_shard(IDS, before)
        lost = [shard for shard, node in enumerate(nodes) if node == second.node_id]
        kept = next(shard for shard, node in enumerate(nodes) if node == first.node_id)
        kept_ids = split.ids_N[split.of(kept)]

        lose(cluster, second, [found[shard][1] for shard in lost])
        with pytest.raises((ps.Unavailable, ps.DeadlineExceeded)):
            client.pull("u", IDS, timeout_s=2)
        with pytest.raises((ps.Unavailable, ps.DeadlineExceeded)):
            client.push("u", IDS, np.ones((len(IDS), 4), np.float32), timeout_s=2)
        assert client.pull("u", kept_ids).shape == (len(kept_ids), 4), "the other node serves"

        third = add_shard_node(cluster)  # what an autoscaler does: Ray asks for the room that is missing
        for shard in lost:
            with pytest.raises(ps.StateLost, match=f"shard {shard} was restarted"):
                client.pull("u", split.ids_N[split.of(shard)], timeout_s=120)
        after = connection.routing
        assert [where_shards_are()[shard][0] for shard in lost] == [third.node_id] * len(lost)
        assert after.epoch == before.epoch
        for shard in range(SHARDS):
            state = "STATE_LOST" if shard in lost else "SERVING"
            assert after.shards[shard].state == state
            assert (after.shards[shard].address != before.shards[shard].address) == (shard in lost)

        with ps.connect(service.address) as late:  # at the address that was given out
            assert late.shards() == after.shards
            assert late.pull("u", kept_ids).shape == (len(kept_ids), 4)
            with pytest.raises(ps.StateLost):
                late.push("u", IDS, np.ones((len(IDS), 4), np.float32))


def train(address: str) -> None:
    command = [sys.executable, "-m", "worker.train", "--data", "synthetic", "--rows", "20000", "--dim", "4"]
    run = subprocess.run([*command, "--service", address], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "20,000 samples in" in run.stdout
