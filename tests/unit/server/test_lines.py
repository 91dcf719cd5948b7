"""Lines to callers: who stalls, who speaks too slowly, who gives way. By a clock that is told the time."""

from __future__ import annotations

import pytest

import ps
from ps.runtime.clock import SYSTEM_CLOCK
from ps.server.gate.lanes import GIVES_WAY_AFTER_S, Lane
from ps.server.gate.lines import LEAST_BYTES_PER_S, Line, Places
from tests.clocks import ByHand


@pytest.fixture
def clock() -> ByHand:
    return ByHand()


def test_a_line_stalls_when_its_caller_is_silent_and_not_while_we_work(clock: ByHand) -> None:
    line = Line(clock.monotonic)
    clock.now = 100
    assert not line.stalls(10)
    with line.waiting():
        clock.now += 9
        assert not line.stalls(10)
        clock.now += 2
        assert line.stalls(10)
    assert not line.stalls(10)


def test_a_caller_may_be_as_slow_as_the_slowest_link_and_no_slower(clock: ByHand) -> None:
    fast, slow = Line(clock.monotonic), Line(clock.monotonic)
    for _ in range(100):
        with fast.waiting(), slow.waiting():
            clock.now += 5
            assert not fast.stalls(10)
        fast.moved(6 * LEAST_BYTES_PER_S)
        slow.moved(LEAST_BYTES_PER_S)
    with slow.waiting():
        clock.now += 1
        assert slow.stalls(10)


def test_a_line_that_is_ended_raises_where_it_waits_and_is_ended_once(clock: ByHand) -> None:
    told: list[ps.Unavailable] = []
    line = Line(clock.monotonic, told.append)
    line.end("we do not wait: it goes on")

    def wait() -> None:
        with line.waiting():
            line.end("silent")
            line.end("again")

    with pytest.raises(ps.Unavailable, match="silent"):
        wait()
    assert [str(error) for error in told] == ["silent"]


def test_where_there_are_too_many_the_one_that_is_silent_longest_gives_way(clock: ByHand) -> None:
    lane = Lane(2, "max_requests")
    first, second, third = (Line(clock.monotonic) for _ in range(3))

    def refused() -> None:
        with pytest.raises(ps.ResourceExhausted, match="max_requests") as error:
            lane.enter(third)
        assert error.value.retry_after_s

    def wait() -> None:
        with second.waiting():
            clock.now += GIVES_WAY_AFTER_S / 2
            with first.waiting():
                clock.now += GIVES_WAY_AFTER_S / 4
                refused()
                assert second.ended is None
                clock.now += GIVES_WAY_AFTER_S / 2
                refused()
                assert second.ended is not None

    with lane.holding(first):
        with pytest.raises(ps.Unavailable, match="others needed the room"), lane.holding(second):
            wait()
        assert first.ended is None
        lane.enter(third)


def test_a_call_has_a_place_from_its_first_message_on_but_while_it_waits() -> None:
    places, lane = Places(1), Lane(2, "max_requests")
    line, other = Line(SYSTEM_CLOCK.monotonic, places=places), Line(SYSTEM_CLOCK.monotonic, places=places)

    def free() -> int:
        return places._free.qsize()

    with lane.holding(line), lane.holding(other):
        with line.waiting():
            assert free() == 1
        assert free() == 0
        with line.waiting():
            assert free() == 1
            with other.waiting():
                pass
            assert free() == 0
            lane.leave(other)
        assert free() == 0
    assert free() == 1
    with line.waiting():  # after its work, to send the answer
        pass
    assert free() == 1
