"""The engine: one thread, tasks in the order of submission, and no task can end it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ps.errors import ResourceExhausted, Unavailable
from ps.runtime.clock import SYSTEM_CLOCK
from ps.runtime.places import Threads
from ps.shard.engine import Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    running = Engine(Threads("test"), max_queue=100, clock=SYSTEM_CLOCK.monotonic)
    yield running
    running.close()


def test_tasks_run_in_the_order_of_submission_on_one_thread(engine: Engine) -> None:
    seen: list[tuple[int, int]] = []
    futures = [engine.submit(lambda i=i: seen.append((i, threading.get_ident()))) for i in range(50)]
    for future in futures:
        future.result()
    assert [i for i, _ in seen] == list(range(50))
    assert len({thread for _, thread in seen} - {threading.get_ident()}) == 1


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_an_exception_reaches_the_one_who_asked_and_the_engine_lives_on(engine: Engine, error: BaseException) -> None:
    def fail() -> None:
        raise error

    assert engine.submit(fail).exception() is error
    assert engine.run(lambda: 42) == 42


def test_more_waiting_tasks_than_allowed_are_refused_with_a_hint() -> None:
    engine = Engine(Threads("test"), max_queue=2, clock=SYSTEM_CLOCK.monotonic)
    started, go = threading.Event(), threading.Event()
    try:
        first = engine.submit(lambda: (started.set(), go.wait()))
        assert started.wait(10)
        waiting = [engine.submit(lambda: "done") for _ in range(2)]
        with pytest.raises(ResourceExhausted) as refused:
            engine.submit(lambda: "never")
        assert refused.value.retry_after_s
        assert engine.queue_length == 2
        go.set()
        first.result()
        assert [future.result() for future in waiting] == ["done", "done"]
        assert engine.run(lambda: "again") == "again"
    finally:
        go.set()
        engine.close()


def test_close_finishes_what_is_queued_and_refuses_what_comes_after() -> None:
    engine = Engine(Threads("test"), max_queue=100, clock=SYSTEM_CLOCK.monotonic)
    go, seen = threading.Event(), []
    engine.submit(go.wait)
    futures = [engine.submit(lambda i=i: seen.append(i)) for i in range(5)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    go.set()
    closing.join(10)
    assert not closing.is_alive()
    assert [future.done() for future in futures] == [True] * 5
    assert seen == list(range(5))
    with pytest.raises(Unavailable, match="stopping"):
        engine.submit(lambda: None)
    engine.close()


def test_a_task_submitted_while_closing_is_run_or_refused_never_lost() -> None:
    """Nobody waits for an answer for ever."""
    for _ in range(30):
        engine = Engine(Threads("test"), max_queue=1_000_000, clock=SYSTEM_CLOCK.monotonic)
        outcomes: list[str] = []

        def flood(engine: Engine = engine, outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    engine.submit(lambda: None).result(timeout=10)
                    outcomes.append("ran")
            except Unavailable:
                outcomes.append("refused")

        threads = [threading.Thread(target=flood) for _ in range(3)]
        for thread in threads:
            thread.start()
        engine.close()
        for thread in threads:
            thread.join(20)
        assert outcomes.count("refused") == 3


def test_waits_and_work_are_counted_by_the_clock_given() -> None:
    ticks = iter(range(100))
    engine = Engine(Threads("test"), max_queue=10, clock=lambda: float(next(ticks)))
    for _ in range(3):
        engine.run(lambda: None)
    engine.close()
    assert (engine.tasks_done, engine.wait_s, engine.busy_s) == (3, 3.0, 3.0)
