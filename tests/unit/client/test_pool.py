"""Threads for calls, and who has heard how a call ended."""

from __future__ import annotations

import _thread
import gc
import threading
import weakref
from concurrent.futures import CancelledError, wait

import pytest

from ps.client.connection import pool as pools
from ps.client.connection.pool import Outcome, Pool, Task, current_task

LIMIT_S = 20


def test_calls_that_wait_for_each_other_run_side_by_side() -> None:
    pool, barrier = Pool(8, "test"), threading.Barrier(8, timeout=LIMIT_S)
    for _ in range(3):  # on new threads, and on those that were idle
        assert not wait([pool.submit(barrier.wait) for _ in range(8)], LIMIT_S).not_done
    assert pool.close(LIMIT_S)


def test_no_more_threads_than_allowed_and_the_rest_waits_its_turn() -> None:
    pool, go, seen = Pool(2, "test"), threading.Event(), []
    tasks = [pool.submit(lambda i=i: (go.wait(LIMIT_S), seen.append(i))) for i in range(20)]
    assert len(pool.unfinished()) == 20
    assert tasks[-1].cancel()
    go.set()
    assert pool.close(LIMIT_S)
    assert sorted(seen) == list(range(19))
    with pytest.raises(CancelledError):
        tasks[-1].result()
    assert not pool.unfinished()
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(lambda: None)


def test_what_fails_unheard_is_told_and_what_is_heard_says_so() -> None:
    told: list[Outcome] = []

    def fail() -> None:
        task = current_task()
        assert task is not None
        raise ValueError("no")

    pool = Pool(2, "test", told.append)
    tasks = [pool.submit(fail), pool.submit(fail, hint=True), pool.submit(lambda: None)]
    assert pool.close(LIMIT_S)
    assert [outcome.error for outcome in told] == ["ValueError: no"] * 2
    assert sorted(outcome.heard for outcome in told) == [False, True], "nobody has to hear of a hint"
    with pytest.raises(ValueError, match="no"):
        tasks[0].result()
    assert all(outcome.heard for outcome in told)
    assert str(tasks[0].outcome) == "a call that was not begun (ValueError: no)"
    assert current_task() is None


def test_close_does_not_wait_for_longer_than_it_may() -> None:
    pool, go = Pool(1, "test"), threading.Event()
    task = pool.submit(go.wait)
    for timeout_s in (0.0, 0.01, pools.TURN_S + 0.01):
        with pytest.raises(TimeoutError):
            task.result(timeout_s)
    assert not pool.close(0.01)
    assert pool.unfinished() == [task]
    go.set()
    assert pool.close(LIMIT_S)


def test_a_pool_that_was_dropped_keeps_no_thread_and_a_call_that_ended_nothing() -> None:
    pool = Pool(4, "dropped", idle_s=0.01)
    held = threading.Event()
    kept = weakref.ref(held)
    pool.submit(held.is_set).result(LIMIT_S)
    threads = [thread for thread in threading.enumerate() if thread.name == "dropped"]
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    del held
    gc.collect()
    assert kept() is None
    assert pool.submit(lambda: 7).result(LIMIT_S) == 7, "another thread is begun"


@pytest.mark.parametrize("wait", ["result", "close"])
def test_a_signal_that_does_not_wake_the_main_thread_is_seen_all_the_same(wait: str) -> None:
    """As one that comes just before a wait begins: `interrupt_main` marks it as come, and wakes nobody."""
    pool, waits, go = Pool(1, "test"), threading.Event(), threading.Event()

    def call() -> None:
        waits.wait(LIMIT_S)
        _thread.interrupt_main()
        go.wait(LIMIT_S)

    def wait_for(task: Task[None]) -> None:
        waits.set()
        task.result() if wait == "result" else pool.close()

    task = pool.submit(call)
    with pytest.raises(KeyboardInterrupt):
        wait_for(task)
    assert not task.done()
    go.set()
    task.result()
