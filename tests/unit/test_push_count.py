"""The count of a table's pushes: the most that each worker has said, summed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.table import push_count
from ps.table.push_count import ROUNDS, PushCount


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30)), max_size=30))
def test_it_is_the_sum_of_the_most_of_each_in_whatever_order_they_come(pushes: list[tuple[int, int]]) -> None:
    counted, most = PushCount(), {}
    for worker, said in pushes:
        most[worker] = max(most.get(worker, 0), said)
        assert counted.count(worker, said) == counted.total == sum(most.values())


def test_rounds_and_workers_that_say_nothing_are_counted_here() -> None:
    counted = PushCount()
    assert [counted.count(worker, 0) for worker in (ROUNDS, 7, ROUNDS, 7, 8)] == [1, 2, 3, 4, 5]
    assert counted.count(7, 10) == 13


def test_what_a_worker_said_that_is_forgotten_stays_in_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_count, "MAX_WORKERS", 2)
    counted = PushCount()
    for worker in range(5):
        counted.count(worker, 10)
    assert counted.total == 50
    assert len(counted._of_worker) == 2
