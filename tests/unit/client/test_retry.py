"""Deadlines, and what is worth another attempt before them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ps.client.connection.retry import FIRST_BACKOFF_S, MAX_BACKOFF_S, Deadline, retry
from ps.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    PsError,
    ResourceExhausted,
    SequenceConflict,
    StaleRouting,
    StateLost,
    Unavailable,
    all_errors,
)
from ps.runtime.entropy import SYSTEM_ENTROPY
from tests.clocks import Passing

CHANCE = random.Random(0)


class Drawn(random.Random):
    """A source that has drawn already."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


@pytest.fixture
def time() -> Passing:
    return Passing()


def failing(times: int, error: PsError) -> Callable[[int], str]:
    def attempt(number: int) -> str:
        if number < times:
            raise error
        return f"attempt {number}"

    return attempt


def test_a_deadline_counts_down_and_then_raises(time: Passing) -> None:
    deadline = Deadline(2.0, time)
    time.now += 1.5
    assert deadline.remaining_s() == pytest.approx(0.5)
    time.now += 0.5
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        deadline.remaining_s()


def test_a_part_of_an_operation_may_have_less_time_by_the_same_clock(time: Passing) -> None:
    whole = Deadline(60, time)
    part = whole.at_most(2.0)
    assert whole.at_most(100.0) is whole
    time.now += 2.0
    assert whole.remaining_s() == 58.0
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        part.remaining_s()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_deadline_in_the_past_is_refused(time: Passing, timeout_s: float) -> None:
    with pytest.raises(InvalidArgument, match="timeout_s"):
        Deadline(timeout_s, time)


@pytest.mark.parametrize("error", [Unavailable("x"), ResourceExhausted("x", retry_after_s=0.1)])
def test_what_another_attempt_can_mend_is_attempted_again(time: Passing, error: PsError) -> None:
    refreshed: list[int] = []
    assert retry(failing(4, error), Deadline(60, time), CHANCE, lambda: refreshed.append(1)) == "attempt 4"
    assert len(refreshed) == len(time.slept) == 4, "looked up again before each repeat"


NOT_RETRIED = [kind for kind in all_errors().values() if kind not in (Unavailable, ResourceExhausted)]


@pytest.mark.parametrize("kind", NOT_RETRIED)
def test_every_other_error_is_raised_at_once(time: Passing, kind: type[PsError]) -> None:
    error = kind("x")
    with pytest.raises(kind) as raised:
        retry(failing(1, error), Deadline(60, time), CHANCE)
    assert raised.value is error
    assert not time.slept


def test_a_limit_without_a_hint_is_raised_at_once(time: Passing) -> None:
    """The request is too large now and will be too large later."""
    with pytest.raises(ResourceExhausted):
        retry(failing(1, ResourceExhausted("too many ids")), Deadline(60, time), CHANCE)
    assert not time.slept


def test_the_shards_hint_is_the_least_that_is_waited(time: Passing) -> None:
    retry(failing(3, ResourceExhausted("busy", retry_after_s=5.0)), Deadline(60, time), CHANCE)
    assert min(time.slept) >= 5.0


def test_those_that_were_given_the_same_hint_do_not_come_back_together(time: Passing) -> None:
    for drawn in (0.0, 0.25, 0.75):
        retry(failing(1, ResourceExhausted("busy", retry_after_s=4.0)), Deadline(60, time), Drawn(drawn))
    assert time.slept == [4.0, 5.0, 7.0]


def test_a_seed_of_the_trainers_does_not_make_it_wait_as_the_others_do(time: Passing) -> None:
    """Ranks begin with the same seed; and what they draw next is theirs, however often a call was tried."""
    for _ in range(2):
        random.seed(7)
        retry(failing(1, Unavailable("x")), Deadline(60, time), SYSTEM_ENTROPY)
        drawn = random.random()
    random.seed(7)
    assert random.random() == drawn
    assert time.slept[0] != time.slept[1]


def test_waits_double_with_jitter_up_to_a_limit(time: Passing) -> None:
    retry(failing(12, Unavailable("x")), Deadline(600, time), CHANCE)
    for i, waited in enumerate(time.slept):
        full = min(FIRST_BACKOFF_S * 2**i, MAX_BACKOFF_S)
        assert full / 2 <= waited <= full
    assert len(set(time.slept)) == len(time.slept)


def test_before_the_deadline_the_last_error_is_raised_since_it_says_more(time: Passing) -> None:
    with pytest.raises(Unavailable, match="nobody there"):
        retry(failing(10**9, Unavailable("nobody there")), Deadline(3.0, time), CHANCE)
    assert sum(time.slept) < 3.0, "no sleep beyond the deadline"


@pytest.mark.parametrize("error", [InternalError("x"), StaleRouting("x"), StateLost("x"), SequenceConflict("x")])
def test_a_failing_look_up_does_not_hide_the_attempts(time: Passing, error: PsError) -> None:
    def refresh() -> Any:
        raise error

    assert retry(failing(2, Unavailable("x")), Deadline(60, time), CHANCE, refresh) == "attempt 2"
