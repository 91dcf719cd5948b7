"""Bounded staleness: nobody is further ahead of the slowest than is allowed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ps
from ps.client.clock import FINISHED
from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.server.progress import Progress
from ps.v1 import control_pb2 as pb
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET

STEPS = 12
SHORT_S = 0.3


def advance(progress: Progress, group: str, rank: int, clocks: Sequence[int], max_staleness: int = 0) -> list[int]:
    request = pb.AdvanceRequest(group=group, rank=rank, clocks=clocks, max_staleness=max_staleness)
    return list(pb.AdvanceResponse.FromString(progress.advance(request.SerializeToString())).clocks)


class Watched:
    """The steps that each trainer has made, and the most that one was seen ahead of another when it began one."""

    def __init__(self, ranks: int) -> None:
        self._made = [0] * ranks
        self._lock = threading.Lock()
        self.most = 0

    def begin(self, rank: int) -> None:
        with self._lock:
            self.most = max(self.most, self._made[rank] - min(self._made))

    def end(self, rank: int) -> None:
        with self._lock:
            self._made[rank] += 1

    def finish(self, rank: int) -> None:
        with self._lock:
            self._made[rank] = FINISHED


@settings(max_examples=12)
@given(st.integers(2, 4), st.integers(0, 3), st.integers(0, 1 << 30))
def test_nobody_begins_a_step_more_than_that_ahead_of_the_slowest(ranks: int, max_staleness: int, seed: int) -> None:
    """Real threads, steps of random length, some trainers with fewer steps than others."""
    watched = Watched(ranks)

    def train(client: ps.Client, rank: int) -> None:
        rng = random.Random(seed + rank)
        clock = client.clock(f"run {seed}", rank=rank, ranks=ranks, max_staleness=max_staleness)
        for step in range(STEPS - rank):
            clock.advance(step)
            watched.begin(rank)
            time.sleep(rng.random() * 0.004)
            watched.end(rank)
        watched.finish(rank)
        clock.finish()

    with ps.connect("inproc:") as client, ThreadPoolExecutor(ranks) as pool:
        list(pool.map(lambda rank: train(client, rank), range(ranks)))
    assert watched.most <= max_staleness


def test_a_trainer_that_never_comes_is_named_and_one_that_has_finished_is_not_waited_for() -> None:
    with ps.connect("inproc:") as client:
        first, second, third = (client.clock("run", rank=rank, ranks=3, max_staleness=2) for rank in range(3))
        third.advance(1)
        first.advance(2)
        with pytest.raises(
            ps.DeadlineExceeded, match=r"may be 2 ahead; after 0\.3 s rank 1 has made 0, rank 2 has made"
        ):
            first.advance(4, timeout_s=SHORT_S)
        second.finish()
        third.finish()
        first.advance(4)
        assert first.clocks == [4, FINISHED, FINISHED]


def test_a_coordinator_that_starts_anew_learns_all_clocks_from_whoever_asks() -> None:
    with LoopbackCluster(1, QUIET) as cluster, ps.connect(cluster.address) as client, ExitStack() as stack:
        clocks = [client.clock("run", rank=rank, ranks=3, max_staleness=1) for rank in range(3)]
        clocks[2].finish()
        clocks[1].advance(1)
        clocks[0].advance(2)
        port = int(cluster.address.rpartition(":")[2])
        cluster.coordinator.stop()
        cluster.coordinator = Coordinator(QUIET, port)
        clocks[0].advance(2)  # it knows of rank 2 that it has finished
        with pytest.raises(ps.DeadlineExceeded, match="rank 1 has made 1"):
            clocks[0].advance(3, timeout_s=SHORT_S)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waits = pool.submit(clocks[0].advance, 3)
        clocks[1].advance(2)
        waits.result()


def test_many_that_wait_leave_threads_for_the_one_they_wait_for() -> None:
    """More ranks than gRPC threads."""
    ranks = 6
    config = ServiceConfig(watching={"metrics": False}, performance={"grpc_threads": 2})
    with LoopbackCluster(1, config) as cluster, ps.connect(cluster.address) as client:
        clocks = [client.clock("run", rank=rank, ranks=ranks, max_staleness=0) for rank in range(ranks)]

        def train(clock: ps.client.clock.Clock) -> None:
            for step in range(3):
                clock.advance(step)

        with ThreadPoolExecutor(ranks) as pool:
            list(pool.map(train, clocks))
        assert [clock.clocks[clock.rank] for clock in clocks] == [2] * ranks


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ((0, [3, 0]), "has made 5 steps and says 3 now: a run that starts again"),
        ((1, [5, 0, 0]), "has 2 ranks; rank 1 says that it has 3"),
        ((2, [5, 0]), "rank 2 of 2"),
        ((1, [5, 1 << 63]), "the most is"),
    ],
)
def test_what_cannot_be_is_refused(said: tuple[int, list[int]], match: str) -> None:
    progress = Progress(wait_s=0.0)
    advance(progress, "run", 0, [5, 0])
    with pytest.raises(ps.InvalidArgument, match=match):
        advance(progress, "run", *said)
    assert advance(progress, "run", 1, [0, 1]) == [5, 1]


def test_groups_that_nobody_asks_about_are_forgotten() -> None:
    progress = Progress(wait_s=0.0)
    advance(progress, "first", 0, [5, 0])
    for number in range(1024):
        advance(progress, f"run {number}", 0, [1, 0])
    assert advance(progress, "first", 1, [0, 1]) == [0, 1]


def test_so_are_large_groups_when_there_are_more_of_them_than_there_is_room_for() -> None:
    progress = Progress(wait_s=0.0)
    for number in range(17):
        advance(progress, f"run {number}", 0, [5, *[0] * 4095])
    assert advance(progress, "run 16", 1, [0, 1, *[0] * 4094])[:2] == [5, 1]
    assert advance(progress, "run 0", 1, [0, 1, *[0] * 4094])[:2] == [0, 1], "the rest of it says so again"


@pytest.mark.parametrize("max_staleness", [-1, True, 1.5])
def test_a_bound_is_a_number_of_steps(max_staleness: object) -> None:
    with ps.connect("inproc:") as client, pytest.raises(ps.InvalidArgument, match="how many steps"):
        client.clock("run", rank=0, ranks=2, max_staleness=max_staleness)  # type: ignore[arg-type]


def test_a_clock_never_goes_back() -> None:
    with ps.connect("inproc:") as client:
        clock = client.clock("run", rank=0, ranks=1, max_staleness=0)
        clock.advance(3)
        with pytest.raises(ps.InvalidArgument, match="never goes back"):
            clock.advance(2)
