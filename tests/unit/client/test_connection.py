"""Calls side by side: all are waited for, and the first error is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

import ps
from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline
from ps.cluster import inprocess


@pytest.fixture
def connection() -> Iterator[Connection]:
    made = Connection(inprocess.start())
    yield made
    made.close()


def test_results_are_in_the_order_of_the_tasks(connection: Connection) -> None:
    assert connection.tasks.each([lambda i=i: i for i in range(10)], Deadline(20)) == list(range(10))
    assert connection.tasks.each([], Deadline(20)) == []


def test_tasks_run_side_by_side(connection: Connection) -> None:
    """Each waits for the others: one after the other they would never end."""
    barrier = threading.Barrier(4, timeout=20)
    connection.tasks.each([barrier.wait] * 4, Deadline(20))


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
        connection.tasks.each([lambda i=i: task(i) for i in range(4)], Deadline(20))
    assert sorted(ended) == sorted({0, 1, 2, 3} - {fails})


def test_traffic_counts_messages_by_method(connection: Connection) -> None:
    with ps.connect(connection.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=4))
        client.pull("t", range(1000))
        traffic = client.stats()["client"]
    assert traffic["sent_bytes"]["Pull"] > 8_000
    assert 16_000 < traffic["received_bytes"]["Pull"] < 17_000
    assert traffic["retries"] == 0
