"""Calls side by side: all are waited for, and the first error is told."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline
from ps.client.connection.transport import InProcessTransport
from ps.cluster import inprocess
from ps.runtime.clock import SYSTEM_CLOCK
from ps.wire.methods import Method
from tests.clocks import Passing


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection(inprocess.start())
    yield made
    made.close()


def test_results_are_in_the_order_of_the_tasks(connection: Connection) -> None:
    assert connection.tasks.each([lambda i=i: i for i in range(10)], Deadline(20, SYSTEM_CLOCK)) == list(range(10))
    assert connection.tasks.each([], Deadline(20, SYSTEM_CLOCK)) == []


def test_tasks_run_side_by_side(connection: Connection) -> None:
    """Each waits for the others: one after the other they would never end."""
    barrier = threading.Barrier(4, timeout=20)
    connection.tasks.each([barrier.wait] * 4, Deadline(20, SYSTEM_CLOCK))


@pytest.mark.parametrize("fails", [0, 1, 3])
def test_the_first_error_is_raised_after_all_have_ended(connection: Connection, fails: int) -> None:
    """A caller may reuse its arrays then: nobody reads them any more."""
    ended, release = [], threading.Event()

    def task(i: int) -> int:
        if i == fails:
            release.set()
            raise ValueError(f"task {i}")
        assert release.wait(20)
        ended.append(i)
        return i

    # The failing one must not wait behind the last, which the calling thread may run.
    with pytest.raises(ValueError, match=f"task {fails}"):
        connection.tasks.each([lambda i=i: task(i) for i in range(4)], Deadline(20, SYSTEM_CLOCK))
    assert sorted(ended) == sorted({0, 1, 2, 3} - {fails})


class Deaf(InProcessTransport):
    """A shard that leaves so many calls unanswered."""

    unanswered = 0

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """One message in, one out."""
        if Deaf.unanswered:
            Deaf.unanswered -= 1
            raise ps.Unavailable("nobody answers")
        return super().unary(method, data, timeout_s)


def test_identity_and_pauses_of_a_client_are_of_the_entropy_and_the_clock_that_it_is_given(
    connection: Connection,
) -> None:
    clock, drawn = Passing(), random.Random(7)
    Deaf.unanswered = 5
    with ps.Client(Connection(connection.address, Deaf, clock, random.Random(7))) as client:
        assert clock.slept == [0.025 * 2**n * (1 + drawn.random()) for n in range(5)]
        assert client._session.worker_id == drawn.getrandbits(63)
        Deaf.unanswered = 4  # two attempts, and who is where is asked after each
        assert client.stats()["client"]["retries"] == 2
        assert clock.slept[5:] == [0.025 * 2**n * (1 + drawn.random()) for n in range(2)]
        Deaf.unanswered = 1 << 20
        with pytest.raises(ps.Unavailable, match="nobody answers"):
            client.stats(timeout_s=3600.0)
        assert 3500 < sum(clock.slept[7:]) < 3600


def test_traffic_counts_messages_by_method(connection: Connection) -> None:
    with ps.connect(connection.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=4))
        client.pull("t", range(1000))
        traffic = client.stats()["client"]
    assert traffic["sent_bytes"]["Pull"] > 8_000
    assert 16_000 < traffic["received_bytes"]["Pull"] < 17_000
    assert traffic["retries"] == 0
