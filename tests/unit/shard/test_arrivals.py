"""Bytes of bodies count as they come, and of bodies that each fit alone one always gets through."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.errors import ResourceExhausted
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.shard.writes.arrivals import PATIENCE_S, SMALL_BYTES, Arrivals
from ps.storage.budget.part import Part
from tests.clocks import ByHand
from tests.waiting import LIMIT_S, until

CHUNK = 2 * SMALL_BYTES
LIMIT = 10 * CHUNK


def arrivals(clock: Clock = SYSTEM_CLOCK) -> tuple[Arrivals, Part]:
    part = Part(LIMIT, "messages under way")
    return Arrivals(part, clock), part


def test_a_body_holds_what_has_come_of_it_until_it_ends() -> None:
    bodies, part = arrivals()
    with bodies.body() as stalled:
        stalled.hold(CHUNK)
        with bodies.body() as other:
            for _ in range(9):
                other.hold(CHUNK)
        assert part.used == CHUNK
    assert part.used == 0


def test_more_than_would_ever_fit_is_refused_without_a_hint() -> None:
    bodies, _ = arrivals()
    with bodies.body() as body, pytest.raises(ResourceExhausted) as refused:
        body.hold(LIMIT + 1)
    assert refused.value.retry_after_s is None


def test_of_two_that_have_come_in_part_the_younger_gives_way() -> None:
    bodies, part = arrivals()

    def younger_waits() -> None:
        with bodies.body() as younger:
            younger.hold(5 * CHUNK)
            half.set()
            younger.hold(CHUNK)

    half = threading.Event()
    with ThreadPoolExecutor(1) as pool, bodies.body() as older:
        older.hold(5 * CHUNK)
        waits = pool.submit(younger_waits)
        assert half.wait(LIMIT_S)
        until(lambda: bodies._waits is not None)
        for _ in range(5):
            older.hold(CHUNK)
        error = waits.exception(LIMIT_S)
        assert isinstance(error, ResourceExhausted)
        assert error.retry_after_s
        assert part.used == 10 * CHUNK


@pytest.mark.parametrize("nbytes", [1, CHUNK])
def test_while_an_older_one_waits_a_younger_one_that_finds_no_room_is_refused_at_once(nbytes: int) -> None:
    clock = ByHand()
    bodies, _ = arrivals(clock)
    with ThreadPoolExecutor(1) as pool, bodies.body() as older, bodies.body() as younger:
        older.hold(5 * CHUNK)
        younger.hold(5 * CHUNK)
        waits = pool.submit(older.hold, CHUNK)
        until(lambda: bodies._waits is older)
        with pytest.raises(ResourceExhausted, match="an older message waits"):
            younger.hold(nbytes)
        assert not waits.done()
        clock.now += PATIENCE_S
        assert isinstance(waits.exception(LIMIT_S), ResourceExhausted)


def test_one_that_waits_goes_on_when_another_ends() -> None:
    bodies, part = arrivals()
    ended = threading.Event()

    def first() -> None:
        with bodies.body() as body:
            body.hold(8 * CHUNK)
            there.set()
            assert ended.wait(LIMIT_S)

    there = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        pool.submit(first)
        assert there.wait(LIMIT_S)
        with bodies.body() as second:
            second.hold(2 * CHUNK)
            more = pool.submit(second.hold, CHUNK)
            until(lambda: bodies._waits is second)
            ended.set()
            more.result(LIMIT_S)
            assert part.used == 3 * CHUNK


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(1, 3 * CHUNK), min_size=1, max_size=6), min_size=2, max_size=6))
def test_any_bodies_that_each_fit_alone_get_through_with_retries(sizes: Sequence[Sequence[int]]) -> None:
    """However they interleave: each is a thread that begins anew when it is refused."""
    bodies, part = arrivals()
    chunked = [cut_to_fit(chunks) for chunks in sizes]
    start = threading.Barrier(len(chunked))

    def send(chunks: Sequence[int]) -> int:
        start.wait(LIMIT_S)
        for attempt in range(10_000):
            try:
                with bodies.body() as body:
                    for n in chunks:
                        body.hold(n)
                    return attempt
            except ResourceExhausted as refused:
                assert refused.retry_after_s is not None
                threading.Event().wait(0.001 * (attempt % 3))
        raise AssertionError("refused for good")

    with ThreadPoolExecutor(len(chunked)) as pool:
        list(pool.map(send, chunked, timeout=LIMIT_S))
    assert part.used == 0


def cut_to_fit(chunks: Sequence[int]) -> list[int]:
    kept, room = [], LIMIT
    for n in chunks:
        kept.append(min(n, room))
        room -= kept[-1]
    return [n for n in kept if n]
