"""A service on a real local Ray: launch, train, lose a shard, lose the coordinator, shut down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

import ps
from ps.client.connection.connection import Connection
from ps.cluster.ray import actors
from ps.cluster.ray.launch import find_actors
from ps.wire.routing import split_by_shard

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


def kill(*actor_names: str) -> None:
    """kill -9 of the actors' processes at the same moment; each says itself which it is."""
    handles = [ray.get_actor(name, namespace=actors.NAMESPACE) for name in actor_names]
    for pid in ray.get([handle.__ray_call__.remote(lambda _: os.getpid()) for handle in handles], timeout=20):
        os.kill(pid, signal.SIGKILL)


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
        assert [shard.state for shard in client.shards()] == ["SERVING", "STATE_LOST"]


@pytest.mark.slow
def test_the_coordinator_is_rebuilt_from_the_shards_where_it_was(service: ps.Service) -> None:
    connection = Connection(service.address)
    with ps.Client(connection) as client:
        client.create_table(ps.TableConfig(name="u", dim=4))
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))
        before = connection.routing
        kill(actors.coordinator_name("test"))
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))  # the shards go on without it
        client.create_table(ps.TableConfig(name="v", dim=4), timeout_s=60)  # retries until the new one is there
        after = connection.routing
        assert (after.coordinator, after.epoch) == (service.address, before.epoch)
        assert after.shards == before.shards
        assert set(client.tables()) == {"u", "v"}
        assert client.size("u") == len(IDS), "rows were not touched"
    with ps.connect(service.address) as late:
        assert set(late.tables()) == {"u", "v"}


def connected(address: str) -> Connection:
    """As a trainer's supervisor does: again and again, for a while."""
    end = time.monotonic() + 60
    while True:
        try:
            return Connection(address)
        except ps.Unavailable:
            if time.monotonic() > end:
                raise


@pytest.mark.slow
def test_a_coordinator_and_a_shard_that_die_together_both_come_back(service: ps.Service) -> None:
    connection = Connection(service.address)
    with ps.Client(connection) as client:
        client.create_table(ps.TableConfig(name="u", dim=4, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        client.push("u", IDS, np.ones((len(IDS), 4), np.float32))
        before = connection.routing
        split = split_by_shard(IDS, before)
        kill(actors.coordinator_name("test"), actors.shard_name("test", 1))

        kept, lost = split.ids_N[split.of(0)], split.ids_N[split.of(1)]
        np.testing.assert_array_equal(client.pull("u", kept), -np.ones((len(kept), 4)))
        with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
            client.pull("u", lost, timeout_s=60)
        with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
            client.create_table(ps.TableConfig(name="v", dim=4), timeout_s=60)

    connection = connected(service.address)  # at the address that was given out, and nothing is forgotten
    with ps.Client(connection) as late:
        routing = connection.routing
        assert [shard.state for shard in routing.shards] == ["SERVING", "STATE_LOST"]
        assert (routing.epoch, routing.coordinator) == (before.epoch, service.address)
        assert set(late.tables()) == {"u"}
        np.testing.assert_array_equal(late.pull("u", kept), -np.ones((len(kept), 4)))
        with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
            late.push("u", lost, np.ones((len(lost), 4), np.float32))


@pytest.mark.slow
def test_when_all_die_together_all_come_back_and_say_so(service: ps.Service) -> None:
    names = [actors.coordinator_name("test"), *(actors.shard_name("test", i) for i in range(2))]
    with ps.connect(service.address) as client:
        client.create_table(ps.TableConfig(name="u", dim=4))
        kill(*names)
        with pytest.raises(ps.StateLost, match="was restarted"):
            client.pull("u", IDS, timeout_s=60)
    with ps.Client(connected(service.address)) as late:
        assert [shard.state for shard in late.shards()] == ["STATE_LOST", "STATE_LOST"]


@pytest.mark.slow
def test_a_name_belongs_to_one_service_and_shutdown_frees_it(service: ps.Service) -> None:
    with pytest.raises(ps.InvalidArgument, match="runs in this Ray cluster already"):
        ps.launch(shards=1, name="test")
    with ps.launch(shards=1, name="other") as second, ps.connect(second.address) as client:
        assert len(client.shards()) == 1
    assert len(find_actors("other")) == 0
    assert len(find_actors("test")) == 3


@pytest.mark.slow
def test_more_cpus_than_the_cluster_has_is_a_clear_error(service: ps.Service) -> None:
    with pytest.raises(ps.Unavailable, match=r"1 shards of 999 CPUs did not .* 3 s; the cluster has \d+ CPU:"):
        ps.launch(shards=1, name="greedy", placement=ps.Placement(cpus=999), timeout_s=3)
    assert len(find_actors("greedy")) == 0


def test_ray_token_authentication_stays_on() -> None:
    """A fresh process, since other tests' environment must not decide."""
    code = "import ps, os\nwith ps.launch(name='auth'): print(os.environ.get('RAY_AUTH_MODE', 'token'))"
    environment = {key: value for key, value in os.environ.items() if key != "RAY_AUTH_MODE"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "token"


@pytest.mark.slow
def test_a_service_with_a_log_comes_back_from_whatever_is_killed(tmp_path: Path) -> None:
    """One shard, then all actors at once, then the service is ended and launched again."""
    config = ps.ServiceConfig(log={"mode": "sync", "path": tmp_path / "log"})
    names = [actors.coordinator_name("kept"), *(actors.shard_name("kept", i) for i in range(2))]
    ones = np.ones((len(IDS), 4), np.float32)
    with ps.launch(shards=2, name="kept", config=config) as running:
        connection = Connection(running.address)
        with ps.Client(connection) as client:
            client.create_table(ps.TableConfig(name="u", dim=4, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
            epoch = connection.routing.epoch
            for number, killed in enumerate([names[2:], names]):
                client.push("u", IDS, ones)
                kill(*killed)
                client.push("u", IDS, ones, timeout_s=120)
                np.testing.assert_array_equal(client.pull("u", IDS, timeout_s=60), -2 * (number + 1) * ones)
            assert connection.routing.epoch == epoch
            assert [shard.state for shard in client.shards()] == ["SERVING", "SERVING"]
    with ps.launch(shards=2, name="kept", config=config) as running, ps.connect(running.address) as client:
        np.testing.assert_array_equal(client.pull("u", IDS), -4 * ones)
    assert len(list((tmp_path / "log").glob("shard-*/stopped/*/shard-*/part.json"))) == 2
    with pytest.raises(ps.ConfigError, match="of a service of 2 shards, and this one has 1"):
        ps.launch(shards=1, name="kept", config=config)
