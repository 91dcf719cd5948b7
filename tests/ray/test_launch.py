"""A service on a real local Ray: launch, train, lose a shard, lose the coordinator, shut down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import ray

import ps
from ps.cluster import actors
from ps.cluster.launch import find_actors

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open until the process ends
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray announces its own changes
]

IDS = np.arange(5000)


@pytest.fixture
def service() -> Iterator[ps.Service]:
    with ps.launch(shards=2, name="test") as running:
        yield running
    assert not ray.is_initialized()


def kill(actor_name: str) -> None:
    """kill -9 of the actor's process, found by its own word."""
    handle = ray.get_actor(actor_name, namespace=actors.NAMESPACE)
    os.kill(ray.get(handle.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)


def test_two_shards_train_and_a_killed_one_says_that_its_rows_are_gone(service: ps.Service) -> None:
    with ps.connect(service.address) as client:
        client.create_table(ps.TableConfig(name="u", dim=4, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))
        np.testing.assert_array_equal(client.pull("u", IDS), -np.ones((len(IDS), 4)))
        per_shard = [shard["tables"]["u"]["rows"]["hot"] for shard in client.stats()["shards"]]
        assert sum(per_shard) == len(IDS)
        assert min(per_shard) > 2000, "both shards hold about half"

        kill(actors.shard_name("test", 1))
        with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
            client.pull("u", IDS, timeout_s=60)
        with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
            client.push("u", IDS, np.ones((len(IDS), 4), np.float32), timeout_s=60)
        with ps.connect(service.address) as late, pytest.raises(ps.StateLost):
            late.pull("u", IDS)
        assert [shard.state for shard in client.connection.routing.shards] == ["SERVING", "STATE_LOST"]


def test_the_coordinator_is_rebuilt_from_the_shards(service: ps.Service) -> None:
    with ps.connect(service.address) as client:
        client.create_table(ps.TableConfig(name="u", dim=4))
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))
        before = client.connection.routing
        kill(actors.coordinator_name("test"))
        client.create_table(ps.TableConfig(name="v", dim=4), timeout_s=60)  # retries until the new one is there
        assert client.connection.routing.coordinator != before.coordinator
        assert client.connection.routing.shards == before.shards
        assert set(client.tables()) == {"u", "v"}
        assert client.size("u") == len(IDS), "rows were not touched"


def test_a_name_belongs_to_one_service_and_shutdown_frees_it(service: ps.Service) -> None:
    with pytest.raises(ps.InvalidArgument, match="runs in this Ray cluster already"):
        ps.launch(shards=1, name="test")
    with ps.launch(shards=1, name="other") as second, ps.connect(second.address) as client:
        assert len(client.connection.routing.shards) == 1
    assert len(find_actors("other")) == 0
    assert len(find_actors("test")) == 3


def test_more_cpus_than_the_cluster_has_is_a_clear_error(service: ps.Service) -> None:
    with pytest.raises(ps.Unavailable, match=r"1 shards of 999 CPUs did not start within 3 s"):
        ps.launch(shards=1, name="greedy", cpus_per_shard=999, timeout_s=3)
    assert len(find_actors("greedy")) == 0


def test_ray_token_authentication_stays_on() -> None:
    """A fresh process, since other tests' environment must not decide."""
    code = "import ps, os\nwith ps.launch(name='auth'): print(os.environ.get('RAY_AUTH_MODE', 'token'))"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "token"
