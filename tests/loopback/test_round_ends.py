"""A part of a round is there for as long as its call, and holds no thread: whatever ends the call, the part leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest

import ps
from ps.client.connection.connection import Connection
from ps.cluster import inprocess
from ps.server.shard_server import ShardServer
from ps.shard.writes import rounds
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from ps.wire.channel import open_channel
from tests.clocks import ByHand, Fast
from tests.conftest import StartServer
from tests.loopback.tables import DIM, block, contents, summing
from tests.waiting import until
from tests.wire_calls import RawCalls, error_of, fp32_shape, id_set, rows_bytes

FOR_EVER_MS = (1 << 64) - 1
FEW = 4
"""Threads of a shard."""


def waiting(server: ShardServer) -> int:
    return int(server.shard.stats()["rounds_waiting"])  # type: ignore[call-overload]


def counted(server: ShardServer) -> dict[str, int]:
    """Pushes that have ended, by code."""
    samples = next(iter(server.dispatcher._metrics.calls.collect())).samples
    pushes = [s for s in samples if s.labels["method"] == "Push" and s.name.endswith("_total") and s.value]
    return {sample.labels["code"]: int(sample.value) for sample in pushes}


def part(
    calls: RawCalls,
    rank: int,
    ranks: int,
    group: str = "run",
    number: int = 1,
    worker: int | None = None,
    wait_ms: int = 60_000,
) -> bytes:
    """A push of 1 to id 1; its answer. Each group and rank is a worker of its own, unless another is given."""
    place = pb.Round(group=group, number=number, rank=rank, ranks=ranks)
    worker = zlib.crc32(f"{group} {rank}".encode()) if worker is None else worker
    header = pb.Header(routing_epoch=calls.header.routing_epoch, worker_id=worker)
    gradients = [("t", 1, DIM)], rows_bytes(block([1]))
    return calls.push(number + 1, *gradients, header=header, ids=id_set(t=[1]), round=place, wait_ms=wait_ms)


def messages(calls: RawCalls, **fields: object) -> Iterator[bytes]:
    """Those of the same part, for a call that is made by hand."""
    place = pb.Round(group="run", number=1, rank=0, ranks=2)
    known = {"header": calls.header, "sequence": 1, "tables": [fp32_shape("t", 1, DIM)], "ids": id_set(t=[1])}
    head = pb.PushHead(**{**known, "round": place, "wait_ms": FOR_EVER_MS, **fields})
    yield pb.PushChunk(head=head, payload=rows_bytes(block([1]))).SerializeToString()


def lonely(number: int) -> pb.Round:
    """Of a group of its own, in which nobody else comes."""
    return pb.Round(group=f"lonely {number}", number=1, rank=0, ranks=2)


@pytest.fixture
def server(start_server: StartServer) -> ShardServer:
    started = start_server(performance={"grpc_threads": FEW})
    started.shard.create_table(summing())
    return started


@contextmanager
def by_hand(server: ShardServer, timeout_s: float | None) -> Iterator[tuple[grpc.Channel, grpc.Future]]:
    """A part that waits for ever, as far as its word goes."""
    with RawCalls(server.address) as calls:
        calls.header  # noqa: B018  asks
        channel = open_channel(server.address, 1 << 20)
        call = channel.stream_unary(methods.PUSH.path).future(messages(calls), timeout=timeout_s)
        until(lambda: waiting(server) == 1 or call.done())
        yield channel, call
        channel.close()


ENDS: dict[str, Callable[[grpc.Channel, grpc.Future], object]] = {
    "cancelled": lambda channel, call: call.cancel(),
    "connection lost": lambda channel, call: channel.close(),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_a_part_leaves_when_its_call_ends(
    server: ShardServer, end: Callable[[grpc.Channel, grpc.Future], object]
) -> None:
    with by_hand(server, None) as (channel, call):
        end(channel, call)
        until(lambda: waiting(server) == 0)
        until(lambda: server.shard.budget.bodies.used == 0)
        until(lambda: len(server.dispatcher.calls) == 0)
    assert server.shard.commit.pushes == 0
    assert counted(server) == {"CANCELLED": 1}


def test_a_part_leaves_at_the_deadline_of_its_call_whatever_it_says_of_the_wait(server: ShardServer) -> None:
    with by_hand(server, 0.3) as (_, call):
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        until(lambda: waiting(server) == 0)
        until(lambda: counted(server) == {"CANCELLED": 1})


def test_an_answer_that_comes_later_is_counted_as_any(server: ShardServer) -> None:
    """By its code, and before its caller has it."""
    with RawCalls(server.address) as calls, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: part(calls, rank, 2), range(2)))
        assert counted(server) == {"OK": 2}
        assert type(error_of(part, calls, 0, 2, number=2, wait_ms=10)) is ps.DeadlineExceeded
        assert counted(server) == {"OK": 2, "DEADLINE_EXCEEDED": 1}
        assert len(server.dispatcher.calls) == 0
    assert server.shard.budget.bodies.used == 0


def test_parts_of_dead_callers_stop_nobody(server: ShardServer) -> None:
    """More of them than there are threads."""
    with RawCalls(server.address) as honest, ThreadPoolExecutor(2) as pool:
        dead = RawCalls(server.address)
        header = dead.header
        calls = open_channel(server.address, 1 << 20)
        push = calls.stream_unary(methods.PUSH.path)
        under_way = [
            push.future(messages(dead, header=header, sequence=number + 1, round=lonely(number)))
            for number in range(3 * FEW)
        ]
        until(lambda: waiting(server) == len(under_way))
        calls.close()
        dead.transport.close()
        list(pool.map(lambda rank: part(honest, rank, 2), range(2)))
        until(lambda: waiting(server) == 0)
        assert server.shard.commit.pushes == 1


@pytest.mark.parametrize("kind", ["loopback", "inproc"])
def test_an_interrupted_push_leaves_its_round_and_may_be_sent_again(server: ShardServer, kind: str) -> None:
    """Ctrl-C: the trainer lives on, and its part does not wait for as long as it might have."""
    address = server.address if kind == "loopback" else inprocess.start()
    main = threading.get_ident()
    with ps.connect(address) as client, ps.connect(address) as other, ThreadPoolExecutor(1) as pool:
        client.create_table(summing(), exist_ok=True)

        def count() -> int:
            return int(other.stats()["shards"][0]["rounds_waiting"])

        def interrupt() -> None:
            until(lambda: count() == 1)
            signal.pthread_kill(main, signal.SIGINT)

        push = partial(client.prepare({"t": [1]}).push, {"t": block([1])}, in_round=ps.Round("run", 1, 0, 2))
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            push(timeout_s=1000)
        interrupting.result()
        until(lambda: count() == 0)
        again = pool.submit(push)
        other.prepare({"t": [1]}).push({"t": block([1])}, in_round=ps.Round("run", 1, 1, 2))
        again.result()
        assert contents(other, "t") == {1: [-2.0] * DIM}


@pytest.mark.slow
def test_a_round_that_waits_gives_way_to_a_push_whose_rows_are_on_disk(
    start_server: StartServer, tmp_path: Path
) -> None:
    """What they are read into has no room beside two parts of three."""
    server = start_server(clock=Fast(100), memory={"ram_bytes": 64 << 20}, disk={"path": tmp_path})
    wide, n = 64, 8000
    grads = block(np.ones(10_000), wide)
    with ps.connect(server.address) as client, ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for name in ("d", "r"):
            client.create_table(ps.TableConfig(name=name, dim=wide, optimizer=ps.SGD(lr=1.0)))
        for start in (*range(0, 40 * n, n), *range(5 * n, 40 * n, n)):  # the first ones are used once, and are below
            client.push("d", range(start, start + n), grads[:n])
        until(lambda: client.stats()["shards"][0]["tables"]["d"]["rows"]["disk"] > 10 * n)
        trainers = [stack.enter_context(ps.connect(server.address)) for _ in range(2)]
        steps = [trainer.prepare({"r": np.arange(10_000)}) for trainer in trainers]
        places = [{"in_round": ps.Round("g", 0, rank, 3), "timeout_s": 120.0} for rank in range(2)]
        parts = [pool.submit(step.push, {"r": grads}, **at) for step, at in zip(steps, places, strict=True)]
        until(lambda: waiting(server) == 2 or any(part.done() for part in parts))
        try:
            client.push("d", range(n), grads[:n], timeout_s=10.0)
        finally:
            for trainer in trainers:
                trainer.close()
        assert all(isinstance(part.exception(), ps.PsError) for part in parts)


# threads


def servers_threads() -> int:
    """Those that serve calls and send answers, in this process."""
    return sum(thread.name.startswith(("grpc", "answer")) for thread in threading.enumerate())


def test_many_ranks_on_few_threads(server: ShardServer) -> None:
    """64 parts wait, and hold no thread: those that come one after the other have the same few."""
    ranks = 64
    with ExitStack() as stack, ThreadPoolExecutor(ranks) as pool:
        calls = stack.enter_context(RawCalls(server.address))
        calls.header  # noqa: B018  asks
        before, started = servers_threads(), []
        for rank in range(ranks - 1):
            started.append(pool.submit(part, calls, rank, ranks))
            until(lambda: waiting(server) == len(started))
        assert servers_threads() - before < ranks // 4
        assert part(calls, ranks - 1, ranks)
        assert len({future.result() for future in started}) == 1
    assert server.shard.commit.pushes == 1


def test_two_groups_with_more_ranks_than_threads_both_train(server: ShardServer) -> None:
    """Ten ranks each, three steps."""
    ranks, steps = 10, 3

    def train(calls: RawCalls, group: str, rank: int) -> None:
        for number in range(steps):
            part(calls, rank, ranks, group, number)

    with RawCalls(server.address) as calls, ThreadPoolExecutor(2 * ranks) as pool:
        calls.header  # noqa: B018  asks
        groups = [pool.submit(train, calls, group, rank) for rank in range(ranks) for group in ("a", "b")]
        for each in groups:
            each.result()
    assert server.shard.commit.pushes == 2 * steps


# started again

TRAINER = """
import sys
import numpy as np
import ps
address, rank, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = ps.connect(address, timeout_s=300)
step = client.prepare({"t": [1]})
step.pull()
step.push({"t": np.ones((1, 4), np.float32)}, in_round=ps.Round("run", number, rank, 2))
"""


@contextmanager
def trainer(server: ShardServer, rank: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that pushes its part and ends when that is applied."""
    process = subprocess.Popen([sys.executable, "-c", TRAINER, server.address, str(rank), "1"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_the_part_of_a_trainer_that_is_killed_leaves_and_the_one_started_again_takes_its_place(
    server: ShardServer,
) -> None:
    """kill -9 of a process that would have waited for five minutes."""
    with trainer(server, 0) as killed:
        until(lambda: waiting(server) == 1)
        killed.kill()
        killed.wait()
        until(lambda: waiting(server) == 0)
    with trainer(server, 0) as again, trainer(server, 1) as other:
        assert [again.wait(60), other.wait(60)] == [0, 0]
    with ps.connect(server.address) as client:
        assert contents(client, "t") == {1: [-2.0] * DIM}


def test_a_rank_started_again_takes_its_place_also_before_the_first_is_known_to_be_gone(server: ShardServer) -> None:
    """The one that came last has the rank; the other is told by an error that no client repeats."""
    with RawCalls(server.address) as calls, ThreadPoolExecutor(2) as pool:
        first = pool.submit(error_of, part, calls, 0, 2, worker=1)
        until(lambda: waiting(server) == 1)
        again = pool.submit(part, calls, 0, 2, worker=77)
        told = first.result()
        assert type(told) is ps.SequenceConflict
        assert "another push of rank 0, of worker 0x4d, has taken the place of this one, of worker 0x1" in str(told)
        part(calls, 1, 2)
        assert pb.PushResponse.FromString(again.result()).version == 2
    assert server.shard.commit.pushes == 1


def test_a_rank_started_again_at_another_step_is_told_where_the_others_are(server: ShardServer) -> None:
    with RawCalls(server.address) as calls, ThreadPoolExecutor(1) as pool:
        waits = pool.submit(part, calls, 0, 2, number=7)
        until(lambda: waiting(server) == 1)
        told = error_of(part, calls, 1, 2)
        assert type(told) is ps.InvalidArgument
        assert "started again goes on with round 7; a new run needs a group name of its own" in str(told)
        part(calls, 1, 2, number=7)
        waits.result()


def test_a_group_that_starts_anew_does_not_meet_its_own_dead(server: ShardServer) -> None:
    """All of it was at step 7 and begins at 1: nobody waits there any more."""
    with by_hand(server, None) as (channel, _):
        channel.close()
        until(lambda: waiting(server) == 0)
    with RawCalls(server.address, 50) as calls, ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda rank: part(calls, rank, 2), range(2)))


# the bounds


def test_a_group_that_finds_no_room_leaves_whole_and_comes_again(start_server: StartServer) -> None:
    """Of six calls in progress three may wait: two of one group and two of the other are too many."""
    server = start_server(limits={"max_requests": 6})
    server.shard.create_table(summing())
    with RawCalls(server.address) as calls, ThreadPoolExecutor(8) as pool:
        first = [pool.submit(part, calls, rank, 3, "first") for rank in range(2)]
        until(lambda: waiting(server) == 2)
        assert type(error_of(part, calls, 0, 5, "large")) is ps.InvalidArgument, "five could never come together"
        second = pool.submit(error_of, part, calls, 0, 3, "second")
        until(lambda: waiting(server) == 3)
        told = [error_of(part, calls, 1, 3, "second"), second.result()]
        assert [type(error) for error in told] == [ps.ResourceExhausted] * 2
        assert all(error.retry_after_s for error in told)  # type: ignore[attr-defined]
        assert waiting(server) == 2
        part(calls, 2, 3, "first")
        assert len({future.result() for future in first}) == 1


def test_a_round_that_has_been_open_for_long_gives_way_to_a_pull_that_finds_no_room(start_server: StartServer) -> None:
    clock, of_trainer = ByHand(), ByHand()
    server = start_server(clock=clock, memory={"ram_bytes": ps.config.MIN_RAM_BYTES})
    rows = server.shard.budget.aside.bodies // 9 * 4 // (2 * 4 * DIM)
    trainer = ps.Client(Connection(server.address, clock=of_trainer))
    with ThreadPoolExecutor(1) as pool, ps.connect(server.address) as client, trainer:
        client.create_table(summing())
        push = partial(trainer.prepare({"t": np.arange(rows)}).push, {"t": block(np.ones(rows))})
        waits = pool.submit(error_of, push, in_round=ps.Round("run", 1, 0, 2), timeout_s=1000.0)
        until(lambda: waiting(server) == 1)
        wide = np.arange(server.service.config.limits.max_body_bytes // 4 // DIM * 2 // 3)
        clock.now += rounds.FAIR_S - 0.1
        with pytest.raises((ps.ResourceExhausted, ps.DeadlineExceeded)):
            client.pull("t", wide, timeout_s=0.3)
        assert waiting(server) == 1
        clock.now += 0.1
        assert not client.pull("t", wide, timeout_s=30).any()
        assert waiting(server) == 0, "it is to come again, after a pause by its own clock"
        of_trainer.now += 1000.0
        assert isinstance(waits.result(), ps.DeadlineExceeded)
    assert server.shard.commit.pushes == 0


def test_rounds_under_a_small_budget_take_turns(start_server: StartServer) -> None:
    """Two groups of three; the gradients of five ranks would find no room."""
    server = start_server(memory={"ram_bytes": ps.config.MIN_RAM_BYTES})
    rows = server.shard.budget.aside.bodies // 4 // (2 * 4 * DIM)
    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        clients = [stack.enter_context(ps.connect(server.address, timeout_s=60)) for _ in range(6)]
        clients[0].create_table(summing())

        def train(number: int) -> None:
            for step in range(2):
                place = ps.Round("ab"[number % 2], step, number // 2, 3)
                clients[number].prepare({"t": np.arange(rows)}).push({"t": block(np.ones(rows))}, in_round=place)

        list(pool.map(train, range(6)))
        assert clients[0].pull("t", [0]).tolist() == [[-12.0] * DIM]
    assert server.shard.commit.pushes == 4
    assert server.shard.budget.bodies.used == 0
