"""The server around a shard: health, reflection, limits, drain, metrics, and what happens to clients meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.transport import Transport, open_transport
from ps.counting import declared
from ps.errors import PsError
from ps.server.shard_server import ShardServer
from ps.table.counters import Counters
from ps.v1 import embedding_pb2 as pb
from ps.wire import codec, methods
from ps.wire.status import from_status
from tests.clusters import LoopbackCluster
from tests.conftest import StartServer
from tests.loopback.scrape import Scrape, labels_by_name, scrape, value
from tests.loopback.tables import DIM, block, summing
from tests.waiting import busy_engine, until
from tests.wire_calls import RawCalls, error_of, fp32_shape, id_set, rows_bytes

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@contextmanager
def channel_to(server: ShardServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def health(server: ShardServer, service: str = "") -> int:
    with channel_to(server) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        return health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status


# standard services


@pytest.mark.parametrize("service", ["", "ps.v1.Embedding", "ps.v1.Control"])
def test_the_health_service_says_serving(shard_server: ShardServer, service: str) -> None:
    assert health(shard_server, service) == SERVING


def test_reflection_lists_the_services_and_their_messages(shard_server: ShardServer) -> None:
    with channel_to(shard_server) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"ps.v1.Embedding", "ps.v1.Control", "grpc.health.v1.Health"} <= set(database.get_services())
        file = database.FindFileContainingSymbol("ps.v1.Embedding")
    assert {"PullRequest", "PushChunk"} <= {message.name for message in file.message_type}


def test_a_stub_made_by_hand_from_the_proto_file_is_answered(shard_server: ShardServer) -> None:
    """Any gRPC client can speak to a shard: plain protobuf, no framing of ours."""
    with ps.connect(shard_server.address) as client, channel_to(shard_server) as channel:
        client.create_table(summing())
        header = pb.Header(routing_epoch=shard_server.service.routing.epoch, worker_id=1)
        push = channel.stream_unary(methods.PUSH.path, pb.PushChunk.SerializeToString, pb.PushResponse.FromString)
        head = pb.PushHead(header=header, sequence=1, ids=id_set(t=[3, 4]), tables=[fp32_shape("t", 2, DIM)])
        in_one_message = pb.PushChunk(head=head, payload=rows_bytes(block([1, 2])))
        assert push(iter([in_one_message]), timeout=10).version == 2
        pull = channel.unary_stream(methods.PULL.path, pb.PullRequest.SerializeToString, pb.PullChunk.FromString)
        head_message, rows_message = pull(pb.PullRequest(header=header, ids=id_set(t=[4, 3])), timeout=10)
        assert [(table.dim, table.rows) for table in head_message.head.tables] == [(DIM, 2)]
        assert rows_message.payload == rows_bytes(-block([2, 1]))


# limits


@contextmanager
def in_background(threads: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(threads) as pool:
        yield pool


def outcomes(futures: list[Future[object]]) -> list[str]:
    """ "OK" or the name of each one's error."""
    errors = [future.exception(30) for future in futures]
    return ["OK" if error is None else type(error).__name__ for error in errors]


def test_calls_beyond_max_requests_are_refused_with_a_hint(start_server: StartServer) -> None:
    server = start_server(limits={"max_requests": 2}, performance={"grpc_threads": 8})
    with ps.connect(server.address) as client, RawCalls(server.address) as calls, in_background(2) as pool:
        client.create_table(summing())
        with busy_engine(server.shard):
            running = [pool.submit(calls.prepare, step, id_set(t=[1])) for step in (1, 2)]
            until(lambda: server.shard.engine.queue_length == 2)
            error = error_of(calls.prepare, 3, id_set(t=[1]))
        assert type(error) is ps.ResourceExhausted
        assert "max_requests" in str(error)
        assert error.retry_after_s
        assert outcomes(running) == ["OK", "OK"], "those in progress were not disturbed"
        calls.prepare(4, id_set(t=[1]))


def test_calls_that_wait_for_a_thread_count_as_well(start_server: StartServer) -> None:
    """More calls than threads: what gRPC has accepted and not started must not pile up without a limit."""
    server = start_server(limits={"max_requests": 4}, performance={"grpc_threads": 2})
    with ps.connect(server.address) as client, RawCalls(server.address) as calls, in_background(12) as pool:
        client.create_table(summing())
        with busy_engine(server.shard) as go:
            sent = [pool.submit(calls.prepare, step, id_set(t=[1])) for step in range(12)]
            until(lambda: server.shard.engine.queue_length == 2)
            refused = wait(sent, timeout=3, return_when=FIRST_COMPLETED).done
            go.set()
        assert outcomes(sent).count("OK") >= 4
        assert refused, "none of 12 calls was answered, though 4 may be in progress and none can go on"
        assert set(outcomes(list(refused))) == {"ResourceExhausted"}


def test_a_client_waits_out_a_full_server(start_server: StartServer) -> None:
    """The hint is followed: more callers than the server takes at once, and none sees an error."""
    server = start_server(limits={"max_requests": 2}, performance={"grpc_threads": 8})
    with ps.connect(server.address) as client, in_background(8) as pool:
        client.create_table(summing())
        pushes = [pool.submit(client.push, "t", [1], block([1])) for _ in range(24)]
        assert outcomes(pushes) == ["OK"] * 24
        assert client.pull("t", [1]).tolist() == [[-24.0] * DIM]


def test_the_largest_message_can_be_set_by_the_caller(shard_server: ShardServer) -> None:
    """The service's own limit is a setting too: a trainer must be able to follow it."""
    with ps.connect(shard_server.address, max_message_bytes=64 << 10) as client:
        client.create_table(summing())
        assert client.pull("t", range(1000)).shape == (1000, DIM)
        with pytest.raises(ps.ResourceExhausted, match="larger than max"):
            client.pull("t", range(10_000))
    with pytest.raises(ps.InvalidArgument, match="max_message_bytes=0"):
        ps.connect(shard_server.address, max_message_bytes=0)


# deadlines


def test_a_deadline_that_passes_is_deadline_exceeded_and_the_client_goes_on(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address) as client:
        client.create_table(summing())
        with busy_engine(shard_server.shard):
            for call in (
                lambda: client.pull("t", [1], timeout_s=0.1),
                lambda: client.remove("t", [1], timeout_s=0.1),
                lambda: client.stats(timeout_s=0.1),
                lambda: client.prepare({"t": [1]}).pull(timeout_s=0.1),
            ):
                with pytest.raises(ps.DeadlineExceeded):
                    call()
        assert client.pull("t", [1]).tolist() == [[0.0] * DIM]


def test_the_clients_own_deadline_holds_where_none_is_given(shard_server: ShardServer) -> None:
    with ps.connect(shard_server.address, timeout_s=0.1) as client:
        client.create_table(summing(), timeout_s=10)
        with busy_engine(shard_server.shard), pytest.raises(TimeoutError):
            client.pull("t", [1])


class Lost:
    """A network on which pulls fail, and on which in the end nobody says where the shards are."""

    def __init__(self, error: PsError) -> None:
        self.error = error
        self.silent = False

    def open(self, address: str) -> Transport:
        inner = open_transport(address)
        asked = inner.unary

        def unary(method: methods.Method, data: bytes, timeout_s: float) -> bytes:
            if method is methods.DESCRIBE and self.silent:
                threading.Event().wait(timeout_s)
                raise ps.DeadlineExceeded("no answer")
            return asked(method, data, timeout_s)

        def stream_out(method: methods.Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
            raise self.error

        inner.unary, inner.stream_out = unary, stream_out  # type: ignore[method-assign]
        return inner


@pytest.mark.parametrize("error", [ps.Unavailable("nobody"), ps.StaleRouting("another table")], ids=repr)
def test_looking_up_the_shards_again_keeps_within_the_callers_deadline(
    shard_server: ShardServer, error: PsError
) -> None:
    lost = Lost(error)
    with ps.Client(Connection(shard_server.address, lost.open)) as client:
        client.create_table(summing())
        lost.silent = True
        for call in (
            lambda: client.pull("t", [1], timeout_s=0.5),
            lambda: client.pull("unknown", [1], timeout_s=0.5),
            lambda: client.tables(timeout_s=0.5),
        ):
            started = time.monotonic()
            with pytest.raises((ps.Unavailable, ps.DeadlineExceeded)):
                call()
            assert time.monotonic() - started < 2.5


# the end


def test_a_stop_lets_calls_in_progress_finish_and_refuses_new_ones() -> None:
    server = ShardServer(0, ps.ServiceConfig(watching={"metrics": False}))
    with ps.connect(server.address) as client, RawCalls(server.address) as calls, in_background(2) as pool:
        client.create_table(summing())
        with busy_engine(server.shard) as go:
            push = pool.submit(calls.push, 1, [("t", 1, DIM)], rows_bytes(block([1])), ids=id_set(t=[1]))
            until(lambda: server.shard.engine.queue_length == 1)  # the look-ahead; the push waits for it
            stopping = pool.submit(server.stop)
            until(lambda: type(_error(RawCalls(server.address), methods.DESCRIBE)) is ps.Unavailable)
            assert not push.done()
            go.set()
        assert pb.PushResponse.FromString(push.result(20)).version == 2
        stopping.result(20)
        assert type(_error(calls, methods.DESCRIBE)) is ps.Unavailable


def _error(calls: RawCalls, method: methods.Method) -> PsError | None:
    with calls:
        try:
            calls.call(method, b"")
        except PsError as error:
            return error
    return None


def test_a_call_that_outlasts_the_drain_is_broken_off() -> None:
    server = ShardServer(0, ps.ServiceConfig(watching={"metrics": False}, network={"drain_timeout_s": 0.1}))
    with ps.connect(server.address) as client, RawCalls(server.address) as calls, in_background(2) as pool:
        client.create_table(summing())
        with busy_engine(server.shard):
            prepare = pool.submit(calls.prepare, 1, id_set(t=[1]))
            until(lambda: server.shard.engine.queue_length == 1)
            stopping = pool.submit(server.stop)
            assert isinstance(prepare.exception(20), ps.Unavailable)
        stopping.result(20)


def test_stopping_twice_is_stopping_once() -> None:
    with ShardServer(0, ps.ServiceConfig(watching={"metrics": False})) as server:
        with ps.connect(server.address) as client:
            client.create_table(summing())
        server.stop()


def test_a_shard_whose_rows_are_lost_says_so_to_everyone(start_server: StartServer) -> None:
    server = start_server()
    with ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", [1], block([1]))
        step = client.prepare({"t": [1]})
        step.pull()
        server.service.state_lost = "shard 0 was restarted"
        for call in (
            lambda: client.pull("t", [1]),
            lambda: client.push("t", [1], block([1])),
            lambda: client.upsert("t", [1], block([1])),
            lambda: client.assign("t", [1], block([1])),
            lambda: client.remove("t", [1]),
            lambda: list(client.export("t")),
            lambda: client.create_table(summing("u")),
            lambda: client.drop_table("t"),
            step.pull,
            lambda: step.push({"t": block([1])}),
            lambda: client.prepare({"t": [1]}).pull(),
            lambda: client.size("t"),
            lambda: client.memory_usage(),
        ):
            with pytest.raises(ps.StateLost, match="shard 0 was restarted"):
                call()
        assert [shard["state_lost"] for shard in client.stats()["shards"]] == ["shard 0 was restarted"]
        assert client.tables(), "what it was can still be asked"
    with ps.connect(server.address) as late, pytest.raises(ps.StateLost):
        late.pull("t", [1])


def test_a_shard_whose_rows_are_lost_says_so_to_prometheus() -> None:
    with ShardServer(0, ps.ServiceConfig(), state_lost="shard 0 was restarted") as server:
        assert value(scrape(server), "ps_state_lost") == 1


def test_counts_that_lack_one_shards_rows_are_not_given_for_the_whole(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        client.push("t", range(100), block(range(100)))
        assert client.size("t") == 100
        assert [shard["state_lost"] for shard in client.stats()["shards"]] == [None, None, None]
        cluster.servers[1].service.state_lost = "shard 1 was restarted"
        for call in (lambda: client.size("t"), client.memory_usage):
            with pytest.raises(ps.StateLost, match="shard 1 was restarted"):
                call()
        assert [shard["state_lost"] for shard in client.stats()["shards"]] == [None, "shard 1 was restarted", None]


def test_every_call_of_a_closed_client_says_that_it_is_closed(client: ps.Client) -> None:
    client.create_table(summing())
    step, empty = client.prepare({"t": [1]}), client.prepare({"t": []})
    step.pull()
    client.close()
    client.close()
    retries = client.traffic()["retries"]
    for call in (
        lambda: client.pull("t", [1]),
        lambda: client.pull("t", []),
        lambda: client.push("t", [1], block([1])),
        lambda: client.prepare({"t": [1]}),
        lambda: client.prepare({"t": []}),
        lambda: client.upsert("t", [1], block([1])),
        lambda: client.assign("t", [1], block([1])),
        lambda: client.remove("t", [1]),
        lambda: next(client.export("t")),
        lambda: client.size("t"),
        client.memory_usage,
        client.stats,
        client.tables,
        lambda: client.create_table(summing("u")),
        lambda: client.drop_table("t"),
        step.pull,
        empty.pull,
        lambda: step.push({"t": block([1])}),
    ):
        with pytest.raises(ps.InvalidArgument, match=r"this client is closed; ps\.connect makes another"):
            call()
    assert client.traffic()["retries"] == retries
    assert not client._session.connection.calls._transports


def test_a_client_that_is_closed_while_others_use_it_gives_them_typed_errors(cluster: LoopbackCluster) -> None:
    for _ in range(5):
        client = ps.connect(cluster.address)
        client.create_table(summing(), exist_ok=True)

        def use(client: ps.Client = client) -> None:
            while True:
                client.pull("t", range(100))

        with in_background(4) as pool:
            users = [pool.submit(use) for _ in range(4)]
            until(lambda client=client: "Pull" in client.traffic()["received_bytes"])
            client.close()
            assert set(outcomes(users)) == {"InvalidArgument"}


def test_a_call_on_a_connection_closed_meanwhile_finds_nobody(shard_server: ShardServer) -> None:
    """grpc raises a bare ValueError there."""
    with RawCalls(shard_server.address) as calls:
        calls.transport.close()
        for call in (lambda: calls.prepare(1, id_set(t=[1])), lambda: calls.pull(), lambda: calls.push(1, [])):
            assert type(error_of(call)) is ps.Unavailable


def test_close_lets_background_pushes_end(cluster: LoopbackCluster) -> None:
    with ps.connect(cluster.address) as client:
        client.create_table(summing())
        pushes = [client.background(lambda: client.push("t", range(30), block(np.ones(30)))) for _ in range(40)]
    assert outcomes(pushes) == ["OK"] * 40


FORKED = """
import os, signal, sys
import numpy as np
import ps

address = sys.argv[1]
client = ps.connect(address)
step = client.prepare({"t": [1]})
step.pull()
calls = {
    "pull": lambda: client.pull("t", [1]),
    "push": lambda: client.push("t", [1], np.ones((1, 4))),
    "prepare": lambda: client.prepare({"t": [1]}),
    "step.pull": lambda: step.pull(),
    "step.push": lambda: step.push({"t": np.ones((1, 4))}),
    "upsert": lambda: client.upsert("t", [1], np.ones((1, 4))),
    "remove": lambda: client.remove("t", [1]),
    "export": lambda: next(client.export("t")),
    "size": lambda: client.size("t"),
    "stats": lambda: client.stats(),
    "tables": lambda: client.tables(),
    "create_table": lambda: client.create_table(ps.TableConfig(name="u", dim=4)),
    "drop_table": lambda: client.drop_table("absent"),
}
for name, call in calls.items():
    child = os.fork()
    if not child:
        signal.alarm(5)  # a hanging call ends the child
        try:
            call()
            os._exit(1)
        except ps.InvalidArgument as error:
            os._exit(0 if "fork" in str(error) else 2)
        except BaseException:
            os._exit(3)
    print(name, os.waitpid(child, 0)[1])
child = os.fork()
if not child:
    signal.alarm(5)
    client.close()
    os._exit(0)
print("close", os.waitpid(child, 0)[1])
print("parent", client.pull("t", [1]).shape)
"""


def test_a_client_refuses_to_be_used_in_a_forked_child_and_lives_on_in_the_parent(shard_server: ShardServer) -> None:
    """gRPC channels do not survive a fork: a data loader's worker that used one would hang."""
    with ps.connect(shard_server.address) as client:
        client.create_table(summing())
    run = subprocess.run(
        [sys.executable, "-c", FORKED, shard_server.address],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"GRPC_VERBOSITY": "NONE"},
    )
    assert run.returncode == 0, run.stderr
    *children, parent = run.stdout.splitlines()
    assert [line for line in children if not line.endswith(" 0")] == []
    assert len(children) == 14
    assert parent == "parent (1, 4)"


# metrics

DOCUMENTED = {
    "ps_rpc_total": {"method", "code"},
    "ps_rpc_duration_seconds_bucket": {"method", "code", "le"},
    "ps_rpc_received_bytes_total": {"method", "kind"},
    "ps_rpc_sent_bytes_total": {"method", "kind"},
    "ps_rpc_active": set(),
    "ps_rows": {"table", "tier"},
    "ps_bytes": {"table", "tier", "purpose"},
    **{f"{each.metric}_total": {"table"} for each in declared(Counters) if each.metric},
    "ps_plain_bytes_total": {"table", "direction"},
    "ps_state_lost": set(),
    "ps_poisoned": set(),
    "ps_log_failed": set(),
    "ps_writes_total": set(),
    "ps_degraded": set(),
    "ps_disk_errors_total": {"operation"},
    "ps_pushes_total": set(),
    "ps_pushes_repeated_total": set(),
    "ps_steps_prepared_total": set(),
    "ps_steps_expired_total": set(),
    "ps_steps_held": set(),
    "ps_process_bytes": {"purpose"},
    "ps_push_staleness_bucket": {"le"},
    "ps_engine_queue_length": set(),
    "ps_stats_age_seconds": set(),
    "ps_engine_tasks_total": set(),
    "ps_engine_wait_seconds_total": set(),
    "ps_engine_busy_seconds_total": set(),
    "ps_checkpoint_version": set(),
    "ps_checkpoint_done_bytes": set(),
    "ps_checkpoint_all_bytes": set(),
    "ps_checkpoints_total": set(),
    "ps_checkpoint_failures_total": set(),
    "ps_checkpoint_age_seconds": set(),
    "ps_checkpoint_every_seconds": set(),
    "ps_checkpoint_bytes": set(),
    "ps_checkpoint_seconds": set(),
}
"""Name -> labels. Few labels, and never an id or a worker: each value is a time series."""


@pytest.fixture(scope="module")
def metered() -> Iterator[ShardServer]:
    with ShardServer(0, ps.ServiceConfig()) as server, ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", [0], block([0]))
        yield server


def test_the_metrics_are_those_documented_with_those_labels(metered: ShardServer) -> None:
    assert labels_by_name(scrape(metered)) == DOCUMENTED


def test_the_metrics_move_with_what_was_done(metered: ShardServer) -> None:
    before = scrape(metered)
    with ps.connect(metered.address) as client, RawCalls(metered.address, worker_id=12345) as calls:
        ids = np.arange(100, 200)
        step = client.prepare({"t": ids})
        step.pull()
        client.push("t", ids[:10], block(ids[:10]))
        step.push({"t": block(ids)})
        step.push({"t": block(ids)})
        client.pull("t", ids[:30])
        assert isinstance(error_of(calls.pull, ids=id_set(absent=[1])), ps.TableNotFound)
        client.remove("t", ids[:5])
    after = scrape(metered)

    def moved(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert moved("ps_rows", table="t", tier="hot") == 95
    assert moved("ps_rows_created_total", table="t") == 100
    assert moved("ps_rows_updated_total", table="t") == 110
    assert moved("ps_rows_read_total", table="t") == 130
    assert moved("ps_plain_bytes_total", table="t", direction="sent") == 130 * DIM * 4
    assert moved("ps_plain_bytes_total", table="t", direction="received") == 110 * DIM * 4
    assert moved("ps_pushes_total") == 2
    assert moved("ps_writes_total") == 3
    assert moved("ps_pushes_repeated_total") == 1
    assert moved("ps_steps_prepared_total") == 1
    assert moved("ps_steps_held") == 0
    assert moved("ps_rpc_total", method="Push", code="OK") == 3
    assert moved("ps_rpc_total", method="Pull", code="OK") == 2
    assert moved("ps_rpc_total", method="Pull", code="NOT_FOUND") == 1
    assert moved("ps_rpc_duration_seconds_count", method="Push", code="OK") == 3
    assert moved("ps_rpc_received_bytes_total", method="Push", kind="gradients") == 210 * DIM * 4
    assert moved("ps_rpc_sent_bytes_total", method="Pull", kind="rows") == 130 * DIM * 4
    assert moved("ps_push_staleness_count") == 1
    assert moved("ps_push_staleness_bucket", le="0.0") + moved("ps_push_staleness_bucket", le="0") == 0
    assert moved("ps_push_staleness_sum") == 1
    assert moved("ps_engine_tasks_total") > 5
    assert value(after, "ps_rpc_active") == value(after, "ps_state_lost") == 0


def test_a_push_that_its_client_broke_off_is_not_counted_as_a_failure_of_the_shard(metered: ShardServer) -> None:
    def answered(found: Scrape) -> dict[str, float]:
        return {
            dict(labels)["code"]: count
            for (name, labels), count in found.items()
            if name == "ps_rpc_total" and ("method", "Push") in labels
        }

    before = answered(scrape(metered))
    half_sent, cancelled = threading.Event(), threading.Event()
    with RawCalls(metered.address) as calls, channel_to(metered) as channel:
        head = pb.PushHead(header=calls.header, sequence=1, ids=id_set(t=[1, 2]), tables=[fp32_shape("t", 2, DIM)])

        def body() -> Iterator[bytes]:
            yield pb.PushChunk(head=head).SerializeToString()
            yield codec.payload_message(rows_bytes(block([1])))
            half_sent.set()
            cancelled.wait(10)

        call = channel.stream_unary(methods.PUSH.path).future(body(), timeout=10)
        assert half_sent.wait(10)
        until(lambda: value(scrape(metered), "ps_rpc_active") == 1)
        call.cancel()
        cancelled.set()
        assert isinstance(from_status(call.code(), "", ()), ps.Unavailable)
    until(lambda: sum(answered(scrape(metered)).values()) > sum(before.values()))
    after = answered(scrape(metered))
    assert after.get("INTERNAL", 0) == before.get("INTERNAL", 0), after
