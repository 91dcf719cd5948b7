"""What a service on Ray shows to those who watch it: names of actors, targets for Prometheus, log lines."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import ray

import ps
from ps.cluster.ray import actors
from tests.loopback.scrape import scrape_at, value
from tests.waiting import until

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open until the process ends
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray announces its own changes
]


def target_of_the_shard(path: Path) -> str:
    (target,) = [g["targets"][0] for g in json.loads(path.read_text()) if g["labels"].get("shard") == "0"]
    return str(target)


@pytest.mark.slow
def test_a_shard_that_comes_back_is_found_by_prometheus_and_in_the_logs(tmp_path: Path) -> None:
    config = ps.ServiceConfig(watching={"discovery_path": tmp_path, "log_format": "json"})
    file = tmp_path / "ads.json"
    with ps.launch(shards=1, name="ads", config=config) as service:
        names = {actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)}
        assert names == {"ads/coordinator", "ads/shard-0"}, "as Ray's dashboard shows them"
        assert [target_of_the_shard(file)] == service.metrics_addresses
        before = value(scrape_at(target_of_the_shard(file)), "process_start_time_seconds")

        shard = ray.get_actor("ads/shard-0", namespace=actors.NAMESPACE)
        os.kill(ray.get(shard.__ray_call__.remote(lambda _: os.getpid()), timeout=20), signal.SIGKILL)
        until(lambda: target_of_the_shard(file) not in service.metrics_addresses, limit_s=60)
        found = scrape_at(target_of_the_shard(file))
        assert value(found, "ps_state_lost") == 1
        assert value(found, "process_start_time_seconds") > before

        logs = Path(ray.nodes()[0]["ObjectStoreSocketName"]).parents[1] / "logs"
        lines = [line for log in logs.glob("worker-*.err") for line in log.read_text().splitlines() if line[:1] == "{"]
        told = [json.loads(line) for line in lines]
        assert ("ads", "0") in {(line.get("service"), line.get("shard")) for line in told}
        assert any("tells that it is back: done" in line["message"] for line in told)
    assert not file.exists()
