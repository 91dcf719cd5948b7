"""Clients that stall, or send and read too slowly, hold up nobody and nothing for long; who is ended comes again."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import ps
from benchmarks.service.half_calls import HalfCall
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2 as control
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.methods import Method
from tests.clocks import Fast
from tests.conftest import StartServer
from tests.loopback.tables import block, summing
from tests.waiting import LIMIT_S, until
from tests.wire_calls import RawCalls, fp32_shape, id_set, rows_bytes, table_ids

DIM, WIDE = 4, 1024
NEVER_S, SOON_S = 600.0, 0.3
HEALTH = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def header(server: ShardServer) -> pb.Header:
    data = server.dispatcher.unary(methods.DESCRIBE, control.DescribeRequest().SerializeToString())
    return pb.Header(routing_epoch=control.DescribeResponse.FromString(data).routing.epoch, worker_id=7)


def push_head(server: ShardServer, rows: int = 1) -> bytes:
    ids = id_set(t=range(rows))
    head = pb.PushHead(header=header(server), sequence=1, ids=ids, tables=[fp32_shape("t", rows, DIM)])
    return pb.PushChunk(head=head).SerializeToString()


def nothing(server: ShardServer, path: str | Method) -> HalfCall:
    return HalfCall(server.address, path)


def half(server: ShardServer, method: str | Method) -> HalfCall:
    call = HalfCall(server.address, method)
    call.send(bytes(1000), upto=100)
    return call


def head_alone(server: ShardServer, method: str | Method) -> HalfCall:
    call = HalfCall(server.address, method)
    call.send(push_head(server))
    return call


def unread(server: ShardServer, method: str | Method) -> HalfCall:
    """More than its window takes is to come, and nobody reads it."""
    ids = [table_ids("w", range(500))]
    if method is methods.PULL:
        request = pb.PullRequest(header=header(server), ids=pb.IdSet(tables=ids)).SerializeToString()
    else:
        request = pb.ExportRequest(header=header(server), table="w").SerializeToString()
    call = HalfCall(server.address, method)
    call.send(request)
    call.end()
    return call


Stall = tuple[Callable[[ShardServer, str | Method], HalfCall], str | Method]
STALLS: dict[str, Stall] = {
    "a push that sends nothing": (nothing, methods.PUSH),
    "a push after its head": (head_alone, methods.PUSH),
    "a push in the middle of a message": (half, methods.PUSH),
    "a write that sends nothing": (nothing, methods.WRITE),
    "half a prepare": (half, methods.PREPARE),
    "half a removal": (half, methods.REMOVE),
    "half a creation": (half, methods.CREATE_TABLE),
    "half a pull": (half, methods.PULL),
    "a pull that is not read": (unread, methods.PULL),
    "an export that is not read": (unread, methods.EXPORT),
    "half a Describe": (half, methods.DESCRIBE),
    "half a question for figures": (half, methods.STATS),
    "half an Advance": (half, methods.ADVANCE),
    "half a question of health": (half, HEALTH),
    "a reflection that asks nothing": (nothing, REFLECTION),
}


@contextmanager
def tables(server: ShardServer) -> Iterator[ps.Client]:
    with ps.connect(server.address) as client:
        client.create_table(summing())
        client.create_table(summing("w", WIDE))
        client.push("w", range(500), block(range(500), WIDE))
        yield client


def in_progress(server: ShardServer) -> int:
    return len(server.dispatcher.calls) + len(server.dispatcher.controls) + len(server._grpc._aside.lane)


def everybody_is_answered(server: ShardServer, client: ps.Client) -> None:
    before = client.pull("t", [1])[0, 0]
    client.push("t", [1], block([1]))
    assert client.pull("t", [1]).tolist() == [[before - 1.0] * DIM]
    assert client.prepare({"t": [1]}).pull()["t"].shape == (1, DIM)
    assert client.stats()["shards"]
    assert client.tables()
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_calls_that_stall_hold_no_thread_of_those_that_work(start_server: StartServer) -> None:
    """Two of each kind, and two threads work."""
    server = start_server(performance={"grpc_threads": 2}, network={"stall_timeout_s": NEVER_S, "drain_timeout_s": 0.1})
    with tables(server) as client, ExitStack() as stack:
        for call, method in [*STALLS.values()] * 2:
            stack.enter_context(call(server, method))
        until(lambda: in_progress(server) == 2 * len(STALLS))
        everybody_is_answered(server, client)
        assert in_progress(server) == 2 * len(STALLS), "they wait on"


def test_calls_that_stall_are_ended_and_have_left_nothing(start_server: StartServer) -> None:
    server = start_server(network={"stall_timeout_s": SOON_S})
    with tables(server) as client, ExitStack() as stack:
        calls = [stack.enter_context(call(server, method)) for call, method in STALLS.values()]
        for name, call in zip(STALLS, calls, strict=True):
            assert call.ended.wait(LIMIT_S), name
        until(lambda: in_progress(server) == 0)
        until(lambda: server.shard.budget.bodies.used == 0)
        everybody_is_answered(server, client)


def test_a_push_that_was_ended_says_why_and_is_applied_once_when_it_comes_again(start_server: StartServer) -> None:
    server = start_server(network={"stall_timeout_s": SOON_S})
    with tables(server) as client, RawCalls(server.address, 7) as calls:
        ended = threading.Event()
        head, body = push_head(server), pb.PushChunk(payload=rows_bytes(block([2]))).SerializeToString()

        def stalls() -> Iterator[bytes]:
            yield head
            ended.wait(LIMIT_S)
            yield body

        with pytest.raises(ps.Unavailable, match=r"stall_timeout_s.*sent again"):
            calls.transport.stream_in(methods.PUSH, stalls(), LIMIT_S)
        ended.set()
        for repeated in (False, True):
            answer = calls.transport.stream_in(methods.PUSH, iter([head, body]), LIMIT_S)
            assert pb.PushResponse.FromString(answer).repeated is repeated
        assert client.pull("t", [0]).tolist() == [[-2.0] * DIM]


@contextmanager
def dripping(call: HalfCall) -> Iterator[None]:
    """A byte now and then: never silent for long, and never done."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(SOON_S / 6) and not call.ended.is_set():
            try:
                call.send(pb.PushChunk(payload=bytes(4 * DIM)).SerializeToString())
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_push_that_drips_is_ended(start_server: StartServer) -> None:
    """Its rows come one by one, slower than any link that a trainer would have."""
    server = start_server(network={"stall_timeout_s": SOON_S})
    with tables(server), HalfCall(server.address, methods.PUSH) as call:
        call.send(push_head(server, rows=5000))
        with dripping(call):
            assert call.ended.wait(LIMIT_S)
        until(lambda: server.shard.budget.bodies.used == 0)


def test_the_one_that_is_silent_gives_way_where_there_are_too_many(
    start_server: StartServer,
) -> None:
    """As many as max_requests stall for good, and others come all the same."""
    server = start_server(
        clock=Fast(20),
        limits={"max_requests": 2},
        network={"stall_timeout_s": 20 * NEVER_S, "drain_timeout_s": 0.1},
    )
    with tables(server) as client, ExitStack() as stack:
        until(lambda: in_progress(server) == 0)
        stalled = [stack.enter_context(head_alone(server, methods.PUSH)) for _ in range(2)]
        until(lambda: len(server.dispatcher.calls) == 2)
        client.push("t", [1], block([1]), timeout_s=LIMIT_S)
        assert client.pull("t", [1], timeout_s=LIMIT_S).tolist() == [[-1.0] * DIM]
        until(lambda: any(call.ended.is_set() for call in stalled))


def test_calls_up_to_max_requests_are_in_progress_and_no_more(start_server: StartServer) -> None:
    """More than there are threads that work: the limit counts what was accepted."""
    server = start_server(
        limits={"max_requests": 5},
        performance={"grpc_threads": 2},
        network={"stall_timeout_s": NEVER_S, "drain_timeout_s": 0.1},
    )
    with tables(server) as client, ExitStack() as stack:
        until(lambda: in_progress(server) == 0)
        for _ in range(5):
            stack.enter_context(head_alone(server, methods.PUSH))
        until(lambda: len(server.dispatcher.calls) == 5)
        with RawCalls(server.address) as calls, pytest.raises(ps.ResourceExhausted, match="max_requests") as refused:
            calls.prepare(1, id_set(t=[1]))
        assert refused.value.retry_after_s
        assert client.stats()["shards"], "controls are not among them"


def test_connections_beyond_max_connections_are_turned_away(start_server: StartServer) -> None:
    server = start_server(limits={"max_connections": 3})
    with ExitStack() as stack:
        first = stack.enter_context(ps.connect(server.address))
        first.create_table(summing())
        idle = [stack.enter_context(HalfCall(server.address, methods.PUSH)) for _ in range(2)]
        until(lambda: len(server.dispatcher.calls) == 2)
        beyond = [stack.enter_context(HalfCall(server.address, methods.PUSH)) for _ in range(5)]
        assert all(call.ended.wait(LIMIT_S) for call in beyond)
        assert first.pull("t", [1]).tolist() == [[0.0] * DIM]
        idle[0].close()
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: ps.connect(server.address).close()).result(LIMIT_S) is None


TRAINER = """
import sys
import numpy as np
import ps

client, pushes = ps.connect(sys.argv[1]), int(sys.argv[2])
grads = np.ones((4000, 256), np.float32)
for step in range(pushes):
    client.push("s", np.arange(4000), grads, timeout_s=120)
    print(step, flush=True)
client.close()
"""


@pytest.mark.slow
def test_a_trainer_that_is_stopped_in_the_middle_of_pushes_loses_none_and_doubles_none(
    start_server: StartServer,
) -> None:
    """SIGSTOP, until the shard has given up whatever was under way; then it goes on."""
    server, pushes = start_server(network={"stall_timeout_s": SOON_S}), 40
    with ps.connect(server.address) as client:
        client.create_table(summing("s", 256))
        trainer = subprocess.Popen([sys.executable, "-c", TRAINER, server.address, str(pushes)], stdout=subprocess.PIPE)
        assert trainer.stdout is not None
        try:
            for step, _ in enumerate(trainer.stdout):
                if step % 8 == 3:
                    trainer.send_signal(signal.SIGSTOP)
                    until(lambda: len(server.dispatcher.calls) == 0)
                    trainer.send_signal(signal.SIGCONT)
        finally:
            trainer.kill()
            trainer.wait()
            trainer.stdout.close()
        assert step + 1 == pushes
        np.testing.assert_array_equal(client.pull("s", range(4000)), block(np.full(4000, -pushes), 256))
