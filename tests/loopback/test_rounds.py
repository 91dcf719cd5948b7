"""Synchronous pushes through the client: several trainers are one with the large batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.client import Client
from ps.client.connection.connection import Connection
from ps.cluster import inprocess
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from tests.clocks import Hurried
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET, StartServer
from tests.faults import Faults, Rates
from tests.loopback.tables import DIM, block, contents, scores, summing, weighing
from tests.wire_calls import RawCalls, error_of, id_set, rows_bytes

RANKS = 3
STEPS = 4
Step = tuple[list[int], list[int]]
"""Ids, duplicates allowed, and a whole number for the gradient of each."""


@contextmanager
def shards(kind: str) -> Iterator[str]:
    with ExitStack() as stack:
        yield inprocess.start() if kind == "inproc" else stack.enter_context(LoopbackCluster(2, QUIET)).address


def together(ranks: int, run: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(ranks) as pool:
        list(pool.map(run, range(ranks)))


def train(client: ps.Client, ranks: int, steps: Sequence[Sequence[Step]], group: str, rank: int) -> None:
    for number, of_ranks in enumerate(steps):
        ids, grads = of_ranks[rank]
        step = client.prepare({"w": np.array(ids, np.int64)})
        step.pull()
        where = ps.Round(group, number, rank, ranks)
        step.push({"w": block(grads)}, positives={"w": np.abs(np.array(grads, np.int64))}, in_round=where)


def one_process(client: ps.Client, steps: Sequence[Sequence[Step]]) -> None:
    for of_ranks in steps:
        ids = np.array([id_ for part, _ in of_ranks for id_ in part], np.int64)
        grads = np.array([grad for _, part in of_ranks for grad in part], np.int64)
        step = client.prepare({"w": ids})
        step.pull()
        step.push({"w": block(grads)}, positives={"w": np.abs(grads)})


@st.composite
def steps(draw: st.DrawFn) -> list[list[Step]]:
    """Of two or three ranks; few ids, so that a rank, or a shard, has none now and then."""
    ranks = draw(st.integers(2, RANKS))

    def part() -> Step:
        ids = draw(st.lists(st.integers(-4, 4), max_size=5))
        return ids, draw(st.lists(st.integers(-20, 20), min_size=len(ids), max_size=len(ids)))

    return [[part() for _ in range(ranks)] for _ in range(draw(st.integers(1, STEPS)))]


@pytest.mark.parametrize("kind", ["inproc", "loopback"])
def test_trainers_in_step_are_one_with_the_large_batch(kind: str) -> None:
    """Real threads. Row-wise Adagrad would tell one push of the sum from two, its score from two uses."""
    config = weighing(occurrences=1, positives=1).model_copy(update={"optimizer": ps.RowwiseAdagrad(lr=0.5)})
    runs = iter(range(10_000))
    with shards(kind) as address, ExitStack() as stack:
        clients = [stack.enter_context(ps.connect(address)) for _ in range(RANKS)]

        @settings(max_examples=20 if kind == "inproc" else 5)
        @given(steps())
        def check(of_steps: list[list[Step]]) -> None:
            ranks, group = len(of_steps[0]), f"run {next(runs)}"
            clients[0].create_table(config)
            one_process(clients[0], of_steps)
            expected = contents(clients[0], "w"), scores(clients[0], "w")
            clients[0].drop_table("w")
            clients[0].create_table(config)
            together(ranks, lambda rank: train(clients[rank], ranks, of_steps, group, rank))
            assert (contents(clients[0], "w"), scores(clients[0], "w")) == expected
            clients[0].drop_table("w")

        check()


def test_every_round_is_applied_once_whatever_the_network_does() -> None:
    rng = np.random.default_rng(5)
    of_steps = [
        [(rng.integers(0, 12, 6).tolist(), rng.integers(-9, 9, 6).tolist()) for _ in range(2)] for _ in range(30)
    ]
    rates = Rates(drop_request=0.08, drop_response=0.08, repeat=0.1, late=0.08, methods=(methods.PUSH,))
    faults = Faults(3, rates)
    with LoopbackCluster(2, QUIET) as cluster, ExitStack() as stack:
        clients = [stack.enter_context(Client(Connection(cluster.address, faults.open, Hurried()))) for _ in range(2)]
        clients[0].create_table(weighing())
        together(2, lambda rank: train(clients[rank], 2, of_steps, "run", rank))
        with ps.connect(cluster.address) as other:
            found = contents(other, "w")
            versions = [shard["pushes"] for shard in other.stats()["shards"]]
    sums: dict[int, int] = {}
    for of_ranks in of_steps:
        for ids, grads in of_ranks:
            for id_, grad in zip(ids, grads, strict=True):
                sums[id_] = sums.get(id_, 0) - grad
    assert found == {id_: [float(total)] * DIM for id_, total in sums.items()}
    assert versions == [len(of_steps)] * 2
    assert faults.seen["drop_response"] > 5


def test_a_rank_that_does_not_come_is_named_within_the_deadline_and_a_retry_completes_the_round(
    cluster: LoopbackCluster,
) -> None:
    with ps.connect(cluster.address) as one, ps.connect(cluster.address) as two:
        one.create_table(weighing())
        first, second = one.prepare({"w": np.arange(30)}), two.prepare({"w": np.arange(10)})
        push = partial(first.push, {"w": block(np.ones(30))}, in_round=ps.Round("run", 0, 0, 2))
        with pytest.raises(ps.DeadlineExceeded, match=r"round 0 of group 'run': ranks \[1\] of 2"):
            push(timeout_s=2.0)
        assert one.size("w") == 0
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(push)
            second.push({"w": block(np.ones(10))}, in_round=ps.Round("run", 0, 1, 2))
            again.result()
        push()  # from the ledgers
        assert contents(one, "w") == {id_: [-2.0 if id_ < 10 else -1.0] * DIM for id_ in range(30)}


def test_waiting_gradients_are_in_the_budget_of_messages(start_server: StartServer) -> None:
    server = start_server()
    with ps.connect(server.address) as client, ps.connect(server.address) as other, ThreadPoolExecutor(1) as pool:
        client.create_table(weighing())
        step = client.prepare({"w": np.arange(1000)})
        waits = pool.submit(step.push, {"w": block(np.ones(1000))}, in_round=ps.Round("run", 0, 0, 2))
        while not server.shard.stats()["rounds_waiting"]:
            assert not waits.done()
        assert server.shard.watch.memory_usage()["bodies"] >= 1000 * DIM * 4
        other.prepare({"w": np.arange(0)}).push({"w": block(np.ones(0))}, in_round=ps.Round("run", 0, 1, 2))
        waits.result()


def test_a_server_that_stops_does_not_wait_for_ranks(start_server: StartServer) -> None:
    """A call that waits in vain until its deadline would say something else."""
    server = start_server(network={"drain_timeout_s": 60})
    with ps.connect(server.address) as client, RawCalls(server.address) as calls, ThreadPoolExecutor(1) as pool:
        client.create_table(summing())
        part = partial(calls.push, 1, [("t", 1, DIM)], rows_bytes(block([1])), ids=id_set(t=[1]))
        place = pb.Round(group="run", number=0, rank=0, ranks=2)
        waits = pool.submit(error_of, part, round=place, wait_ms=60_000)
        while not server.shard.stats()["rounds_waiting"]:
            assert not waits.done()
        server.stop()
        error = waits.result()
    assert type(error) is ps.Unavailable
    assert "round 0 of group 'run': the shard is stopping" in str(error)
