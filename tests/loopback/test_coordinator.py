"""The coordinator without Ray: what it says before it knows the shards, what it learns from them, what it undoes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.cluster import inprocess
from ps.cluster.coordinator.coordinator import Coordinator
from ps.cluster.coordinator.handshake import keep_trying
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.methods import Method
from ps.wire.routing import UNKNOWN, Routing, ShardInfo
from tests.clocks import ByHand, Passing
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import DIM, block, contents, summing
from tests.wire_calls import RawCalls, error_of, id_set

LOST = "shard 1 was restarted"
SOON_S = 0.3
IDS = range(200)


@contextmanager
def coordinator(port: int = 0) -> Iterator[Coordinator]:
    running = Coordinator(QUIET, port)
    try:
        yield running
    finally:
        running.stop()


def told(server: ShardServer) -> Routing:
    return server.report.routing


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


# before they know


CONTROL: dict[Method, bytes] = {
    methods.DESCRIBE: b"",
    methods.CREATE_TABLE: control.CreateTableRequest(config_json=summing().to_json()).SerializeToString(),
    methods.DROP_TABLE: control.DropTableRequest(table="t").SerializeToString(),
    methods.SET_OPTIMIZER: control.SetOptimizerRequest(table="t", settings={"lr": 1}).SerializeToString(),
}


@pytest.mark.parametrize("method", CONTROL, ids=lambda method: method.name)
def test_a_coordinator_that_knows_no_shards_yet_asks_to_come_again(method: Method) -> None:
    with coordinator() as alone, RawCalls(alone.address) as calls:
        error = error_of(calls.call, method, CONTROL[method])
    assert type(error) is ps.Unavailable
    assert "the shards are still starting" in str(error)


def test_a_shard_that_was_told_no_routing_yet_is_not_a_service_of_its_own() -> None:
    with ShardServer(0, QUIET, alone=False) as server:
        assert told(server) is UNKNOWN
        with RawCalls(server.address) as calls:
            error = error_of(calls.call, methods.DESCRIBE, b"")
            assert type(error) is ps.Unavailable
            assert "no routing table yet" in str(error)
        later = threading.Timer(SOON_S, lambda: server.set_routing(Routing.even(5, [server.info], server.address)))
        later.start()
        connection = Connection(server.address)  # comes again until it is told
        assert connection.routing.epoch == 5
        connection.close()
        later.join()


def test_a_shard_that_came_back_refuses_before_it_was_told_anything() -> None:
    with ShardServer(1, QUIET, alone=False, state_lost=LOST) as server, RawCalls(server.address) as calls:
        assert server.info.state == "STATE_LOST"
        calls.header = pb.Header(routing_epoch=1, worker_id=1)
        for error in (
            error_of(calls.pull, ids=id_set(t=[1])),
            error_of(calls.call, methods.CREATE_TABLE, CONTROL[methods.CREATE_TABLE]),
        ):
            assert type(error) is ps.StateLost
            assert LOST in str(error)


# an epoch for every incarnation


def test_every_incarnation_has_an_epoch_of_its_own() -> None:
    epochs = set()
    for shards in (2, 3):
        with LoopbackCluster(shards, QUIET) as cluster:
            epochs |= {cluster.coordinator.routing.epoch, *(told(server).epoch for server in cluster.servers)}
    for _ in range(2):
        with ShardServer(0, QUIET) as server:
            epochs.add(told(server).epoch)
        time.sleep(0.002)  # a service takes longer to end and start than this
        connection = Connection(inprocess.start(QUIET))
        epochs.add(connection.routing.epoch)
        connection.close()
        time.sleep(0.002)
    assert len(epochs) == 6
    assert min(epochs) > 1_600_000_000_000, "milliseconds since 1970"


def test_a_service_refuses_what_was_routed_by_the_one_before_it() -> None:
    with LoopbackCluster(2, QUIET) as first:
        with ps.connect(first.address) as client:
            client.create_table(summing())
        with RawCalls(first.address) as calls:
            header = calls.header
    with LoopbackCluster(3, QUIET, port=port_of(first.address)) as second:
        with ps.connect(second.address) as client:
            client.create_table(summing())
        for server in second.servers:
            with RawCalls(server.address) as calls:
                calls.header = header
                assert type(error_of(calls.pull, ids=id_set(t=[1]))) is ps.StaleRouting


@contextmanager
def outlived(shards: int) -> Iterator[tuple[Connection, ps.Client, ps.Client, LoopbackCluster]]:
    """A connection and its client that know a service of two shards; a client of the service that took its place."""
    with LoopbackCluster(2, QUIET) as first:
        connection = Connection(first.address)
        old = ps.Client(connection)
        old.create_table(summing())
        old.push("t", IDS, block(IDS))
    with (
        old,
        LoopbackCluster(shards, QUIET, port=port_of(first.address)) as second,
        ps.connect(second.address) as new,
    ):
        yield connection, old, new, second


def test_a_client_of_the_service_before_is_told_that_its_table_is_gone() -> None:
    with outlived(3) as (connection, old, _, second):
        before = connection.routing.epoch
        with pytest.raises(ps.TableNotFound):
            old.pull("t", IDS)
        assert before < connection.routing.epoch == second.coordinator.routing.epoch


def test_a_client_of_the_service_before_reads_and_writes_the_rows_of_the_new_one() -> None:
    """The pull was split by the old table and meets the new shards: it must be split again, not taken as it is."""
    with outlived(3) as (_, old, new, _):
        new.create_table(summing())
        new.upsert("t", IDS, block(np.ones(len(IDS))))
        np.testing.assert_array_equal(old.pull("t", IDS), block(np.ones(len(IDS))))
        old.push("t", IDS, block(np.ones(len(IDS))))
        assert contents(new, "t") == {id_: [0.0] * DIM for id_ in IDS}


# a coordinator that starts anew


def test_a_new_coordinator_takes_epoch_and_partitions_from_the_shards(cluster: LoopbackCluster) -> None:
    """Also those that it would never deal itself, and from one shard alone."""
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
    dealt = cluster.coordinator.routing
    moved = replace(dealt, epoch=dealt.epoch + 7, shard_of_partition=dealt.shard_of_partition[::-1].copy())
    cluster.servers[2].set_routing(moved)
    with coordinator() as fresh:
        adopted = fresh.adopt([cluster.servers[2].report], 3)
        assert (adopted.epoch, adopted.coordinator) == (moved.epoch, fresh.address)
        assert adopted.shards == dealt.shards, "where the others were last seen"
        np.testing.assert_array_equal(adopted.shard_of_partition, moved.shard_of_partition)
        with ps.connect(fresh.address) as client:
            assert client.tables() == {"t": summing()}


def test_a_new_coordinator_keeps_in_mind_which_shards_lost_their_rows(cluster: LoopbackCluster) -> None:
    with ExitStack() as stack, ps.connect(cluster.address) as client:
        client.create_table(summing())
        cluster.servers[1].stop()
        cluster.servers[1] = stack.enter_context(ShardServer(1, QUIET, alone=False, state_lost=LOST))
        fresh = stack.enter_context(coordinator())
        adopted = fresh.adopt([server.report for server in cluster.servers], 3)
        assert [shard.state for shard in adopted.shards] == ["SERVING", "STATE_LOST", "SERVING"]
        assert adopted.shards[1].address == cluster.servers[1].address
        assert adopted.epoch == cluster.coordinator.routing.epoch
        late = stack.enter_context(ps.connect(fresh.address))
        with pytest.raises(ps.StateLost, match=LOST):
            late.pull("t", range(100))


def test_a_new_coordinator_deals_anew_only_when_no_shard_has_anything_left() -> None:
    with ExitStack() as stack, coordinator() as fresh:
        servers = [stack.enter_context(ShardServer(i, QUIET, alone=False, state_lost=LOST)) for i in range(2)]
        seen_when_told: list[Routing] = []

        def tell(routing: Routing) -> None:
            seen_when_told.append(fresh.routing)
            for server in servers:
                server.set_routing(routing)

        with pytest.raises(ps.Unavailable, match="1 of 2 shards"):
            fresh.adopt([servers[0].report], 2, tell)
        assert fresh.routing is UNKNOWN
        routing = fresh.adopt([server.report for server in servers], 2, tell)
        assert seen_when_told == [UNKNOWN], "clients learn of a table that the shards have"
        assert [told(server) for server in servers] == [routing, routing]
        assert fresh.adopt([], 2, tell) is routing, "once it knows, it knows"


def test_a_shard_that_comes_back_too_early_is_asked_to_come_again(cluster: LoopbackCluster) -> None:
    with coordinator() as fresh:
        with pytest.raises(ps.Unavailable):
            fresh.replace_shard(cluster.servers[1].info)
        fresh.adopt([server.report for server in cluster.servers], 3)
        back = replace(cluster.servers[1].info, address="127.0.0.1:1", state="STATE_LOST")
        assert fresh.replace_shard(back).shards[1] == back


def test_trying_goes_on_until_it_works_or_nobody_wants_it_any_more() -> None:
    tries: list[int] = []

    def third_time_lucky() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("not yet")

    clock = Passing()
    keep_trying("third time lucky", third_time_lucky, threading.Event(), clock).join(20)
    assert len(tries) == 3
    assert clock.slept == [0.1, 0.2], "pauses double"

    stopped = threading.Event()

    def never() -> None:
        tries.append(1)
        if len(tries) == 12:
            stopped.set()
        raise ValueError("no actor of that name")

    clock = Passing()
    keep_trying("never", never, stopped, clock).join(20)
    assert len(tries) == 12
    assert clock.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_an_epoch_is_the_time_on_the_coordinators_clock() -> None:
    """No service before it, on the same ports, had one that late."""
    clock = ByHand(1_800_000_000.25)
    one = Coordinator(QUIET, listen=inprocess.Named, clock=clock)
    clock.now += 1.5
    routing = one.assemble([ShardInfo(0, "inproc:nobody")])
    one.stop()
    assert one.routing.epoch == routing.epoch == 1_800_000_001_750


# changes that fail on some shard


def tables_of(cluster: LoopbackCluster) -> list[set[str]]:
    return [set(server.shard.tables) for server in cluster.servers]


def test_a_create_that_one_shard_refuses_leaves_the_table_nowhere(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        cluster.servers[2].service.state_lost = LOST
        with pytest.raises(ps.StateLost, match=LOST):
            client.create_table(summing())
        assert tables_of(cluster) == [set(), set(), set()]
        cluster.servers[2].service.state_lost = None
        assert client.create_table(summing()) == summing()
        assert tables_of(cluster) == [{"t"}] * 3


def test_a_create_that_fails_drops_only_what_it_created(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        cluster.servers[0].shard.create_table(summing())  # as from a coordinator that died in between
        cluster.servers[2].service.state_lost = LOST
        with pytest.raises(ps.StateLost):
            client.create_table(summing(), exist_ok=True)
        assert tables_of(cluster) == [{"t"}, set(), set()]


def test_the_first_error_is_raised_though_dropping_fails_too(
    cluster: LoopbackCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise ps.InternalError("cannot drop")

    monkeypatch.setattr(cluster.servers[0].shard, "drop_table", refuse)
    cluster.servers[2].service.state_lost = LOST
    with ps.connect(cluster.address) as client, pytest.raises(ps.StateLost, match=LOST):
        client.create_table(summing())
    assert tables_of(cluster) == [{"t"}, set(), set()]


def test_a_drop_that_failed_halfway_can_be_called_again(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        cluster.servers[1].service.state_lost = LOST
        with pytest.raises(ps.StateLost):
            client.drop_table("t")
        cluster.servers[1].service.state_lost = None
        assert client.drop_table("t")
        assert tables_of(cluster) == [set(), set(), set()]
        with pytest.raises(ps.TableNotFound, match=r"'t' \(there are: none\)"):
            client.drop_table("t")
        assert not client.drop_table("t", missing_ok=True)


def test_a_change_finds_a_shard_that_came_back_at_another_address_meanwhile(cluster: LoopbackCluster) -> None:
    gone = cluster.servers[1]
    gone.stop()
    with ShardServer(1, QUIET, alone=False) as back:
        later = threading.Timer(SOON_S, lambda: cluster.coordinator.replace_shard(back.info))
        later.start()
        with ps.connect(cluster.address) as client:
            client.create_table(summing(), timeout_s=10)
        later.join()
        assert set(back.shard.tables) == {"t"}


# threads


def info_of(shard_id: int) -> ShardInfo:
    return ShardInfo(shard_id, f"new:{shard_id}")


def test_shards_that_come_back_at_the_same_time_are_all_in_the_routing_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change starts from the one before it, however slow; Describe goes on meanwhile."""

    def slow(routing: Routing, **changes: object) -> Routing:
        time.sleep(0.01)
        return replace(routing, **changes)

    monkeypatch.setattr("ps.cluster.coordinator.coordinator.replace", slow)
    with coordinator() as running, RawCalls(running.address) as calls, ThreadPoolExecutor(8) as pool:
        running.assemble([ShardInfo(i, f"old:{i}") for i in range(8)])
        back = [pool.submit(running.replace_shard, info_of(i)) for i in range(8)]
        answer = control.DescribeResponse.FromString(calls.call(methods.DESCRIBE, b"")[0])
        assert len(answer.routing.shards) == 8
        for change in back:
            change.result(20)
        assert running.routing.shards == tuple(info_of(i) for i in range(8))
