"""Deadlines, and what is worth another attempt before them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from ps.client.connection import retry as module
from ps.client.connection.retry import Deadline, retry
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


class Time:
    """monotonic() and sleep() of one clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    by_hand = Time()
    monkeypatch.setattr(module, "time", by_hand)
    return by_hand


def failing(times: int, error: PsError) -> Callable[[int], str]:
    def attempt(number: int) -> str:
        if number < times:
            raise error
        return f"attempt {number}"

    return attempt


def test_a_deadline_counts_down_and_then_raises(time: Time) -> None:
    deadline = Deadline(2.0)
    time.now += 1.5
    assert deadline.remaining_s() == pytest.approx(0.5)
    time.now += 0.5
    with pytest.raises(DeadlineExceeded, match="within 2 s"):
        deadline.remaining_s()


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_deadline_in_the_past_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidArgument, match="timeout_s"):
        Deadline(timeout_s)


@pytest.mark.parametrize("error", [Unavailable("x"), ResourceExhausted("x", retry_after_s=0.1)])
def test_what_another_attempt_can_mend_is_attempted_again(time: Time, error: PsError) -> None:
    refreshed: list[int] = []
    assert retry(failing(4, error), Deadline(60), lambda: refreshed.append(1)) == "attempt 4"
    assert len(refreshed) == len(time.slept) == 4, "looked up again before each repeat"


NOT_RETRIED = [kind for kind in all_errors().values() if kind not in (Unavailable, ResourceExhausted)]


@pytest.mark.parametrize("kind", NOT_RETRIED)
def test_every_other_error_is_raised_at_once(time: Time, kind: type[PsError]) -> None:
    error = kind("x")
    with pytest.raises(kind) as raised:
        retry(failing(1, error), Deadline(60))
    assert raised.value is error
    assert not time.slept


def test_a_limit_without_a_hint_is_raised_at_once(time: Time) -> None:
    """The request is too large now and will be too large later."""
    with pytest.raises(ResourceExhausted):
        retry(failing(1, ResourceExhausted("too many ids")), Deadline(60))
    assert not time.slept


def test_the_shards_hint_is_the_least_that_is_waited(time: Time) -> None:
    retry(failing(3, ResourceExhausted("busy", retry_after_s=5.0)), Deadline(60))
    assert min(time.slept) >= 5.0


def test_those_that_were_given_the_same_hint_do_not_come_back_together(time: Time) -> None:
    for drawn in (0.0, 0.25, 0.75):
        retry(failing(1, ResourceExhausted("busy", retry_after_s=4.0)), Deadline(60), draw=lambda d=drawn: d)
    assert time.slept == [4.0, 5.0, 7.0]


def test_a_seed_of_the_trainers_does_not_make_it_wait_as_the_others_do(time: Time) -> None:
    """Ranks begin with the same seed; and what they draw next is theirs, however often a call was tried."""
    for _ in range(2):
        random.seed(7)
        retry(failing(1, Unavailable("x")), Deadline(60))
        drawn = random.random()
    random.seed(7)
    assert random.random() == drawn
    assert time.slept[0] != time.slept[1]


def test_waits_double_with_jitter_up_to_a_limit(time: Time) -> None:
    retry(failing(12, Unavailable("x")), Deadline(600))
    for i, waited in enumerate(time.slept):
        full = min(module.FIRST_BACKOFF_S * 2**i, module.MAX_BACKOFF_S)
        assert full / 2 <= waited <= full
    assert len(set(time.slept)) == len(time.slept)


def test_before_the_deadline_the_last_error_is_raised_since_it_says_more(time: Time) -> None:
    with pytest.raises(Unavailable, match="nobody there"):
        retry(failing(10**9, Unavailable("nobody there")), Deadline(3.0))
    assert sum(time.slept) < 3.0, "no sleep beyond the deadline"


@pytest.mark.parametrize("error", [InternalError("x"), StaleRouting("x"), StateLost("x"), SequenceConflict("x")])
def test_a_failing_look_up_does_not_hide_the_attempts(time: Time, error: PsError) -> None:
    def refresh() -> Any:
        raise error

    assert retry(failing(2, Unavailable("x")), Deadline(60), refresh) == "attempt 2"
