"""Tables of a cluster: created everywhere or nowhere, once, with one configuration."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import ps
from ps.client.connection.connection import Connection
from ps.cluster.coordinator.coordinator import Coordinator
from ps.server.shard_server import ShardServer
from ps.wire import methods
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, summing
from tests.waiting import busy_engine


def configs_of_shards(cluster: LoopbackCluster, name: str = "t") -> list[ps.TableConfig | None]:
    tables = [server.shard.tables.get(name) for server in cluster.servers]
    return [None if table is None else table.config for table in tables]


def test_a_table_is_on_every_shard_and_known_to_everyone(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        config = client.create_table(summing())
    assert configs_of_shards(cluster) == [config] * 3
    for address in (cluster.address, *(server.address for server in cluster.servers)):
        with ps.connect(address) as late:
            assert late.tables() == {"t": config}
            assert len(late.shards()) == 3, "any shard tells of all"


def test_a_client_of_any_shard_creates_tables_on_all(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.servers[2].address) as client:
        client.create_table(summing())
        assert None not in configs_of_shards(cluster)
        client.drop_table("t")
    assert configs_of_shards(cluster) == [None] * 3


def test_a_second_configuration_is_refused_and_the_first_stays(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as first, ps.connect(cluster.address) as second:
        config = first.create_table(summing())
        with pytest.raises(ps.TableExists):
            second.create_table(config)
        assert second.create_table(config, exist_ok=True) == config
        for other in (summing(dim=8), config.model_copy(update={"seed": 1})):
            with pytest.raises(ps.TableExists, match="you asked for"):
                second.create_table(other, exist_ok=True)
    assert configs_of_shards(cluster) == [config] * 3


@pytest.mark.parametrize("exist_ok", [True, False])
def test_of_configurations_created_at_once_one_wins_on_all_shards(cluster: LoopbackCluster, exist_ok: bool) -> None:
    """Several rounds of eight clients, each with its own idea of the table."""
    clients = [ps.connect(cluster.address) for _ in range(8)]
    try:
        for round_ in range(5):
            name = f"t{round_}"
            start = threading.Barrier(len(clients))

            def create(i: int, name: str = name, start: threading.Barrier = start) -> ps.TableConfig | None:
                start.wait(20)
                try:
                    return clients[i].create_table(summing(name, dim=i + 1), exist_ok=exist_ok)
                except ps.TableExists:
                    return None

            with ThreadPoolExecutor(len(clients)) as pool:
                created = [config for config in pool.map(create, range(len(clients))) if config]
            assert len(created) == 1
            assert configs_of_shards(cluster, name) == created * 3
            for client in clients:
                assert client.tables()[name] == created[0]
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("fault", ["drop_request", "drop_response", "repeat"])
def test_creating_and_dropping_survive_lost_and_repeated_messages(cluster: LoopbackCluster, fault: str) -> None:
    """A create whose answer was lost is not a table of someone else's."""
    faults = Faults(3, Rates(**{fault: 0.5}, methods=(methods.CREATE_TABLE, methods.DROP_TABLE)))
    with ps.Client(Connection(cluster.address, faults.open)) as client:
        for number in range(6):
            name = f"t{number}"
            if fault == "repeat":  # the second of two creates is refused, unless the table may exist
                client.create_table(summing(name), exist_ok=True)
            else:
                client.create_table(summing(name))
            assert None not in configs_of_shards(cluster, name)
            client.drop_table(name, missing_ok=fault == "repeat")
            assert configs_of_shards(cluster, name) == [None] * 3
    assert faults.seen[fault] > 2


def test_a_create_that_reached_some_shards_only_is_completed_by_the_next(cluster: LoopbackCluster) -> None:
    """A shard that does not answer in time: the others may have the table, the caller has an error."""
    with ps.connect(cluster.address) as client:
        with busy_engine(cluster.servers[1].shard), pytest.raises(ps.DeadlineExceeded):
            client.create_table(summing(), timeout_s=0.3)
        client.create_table(summing(), exist_ok=True)
        assert configs_of_shards(cluster) == [summing()] * 3


def test_a_coordinator_that_is_new_learns_the_tables_from_the_shards(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
    fresh = Coordinator(QUIET)
    try:
        fresh.adopt([server.report for server in reversed(cluster.servers)], 3)
        with ps.connect(fresh.address) as client:
            assert client.tables() == {"t": summing()}
            assert [shard.shard_id for shard in client.shards()] == [0, 1, 2]
    finally:
        fresh.stop()


def test_a_shard_that_comes_back_at_another_address_is_found_again() -> None:
    """The client looks the address up before it tries again, and the call that met the gap succeeds."""
    with LoopbackCluster(2, QUIET) as cluster, ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.push("t", range(100), block(range(100)))
        gone = cluster.servers[1]
        gone.stop()
        with ShardServer(1, QUIET, alone=False) as back:
            back.shard.create_table(summing())
            back.set_routing(cluster.coordinator.replace_shard(back.info))
            rows, exists = client.pull("t", range(100), return_exists=True)
            assert rows.shape == (100, DIM)
            assert 0 < exists.sum() < 100, "the rows of the one that stayed"
            assert client.shards()[1].address == back.address
        cluster.servers.remove(gone)
