"""Answers that come later: each ends once, and then holds nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

import ps
from ps.server.answers import Expiries
from ps.server.later import Later
from tests.clocks import ByHand
from tests.waiting import LIMIT_S, until


class Sent:
    """What a call has sent, which is to be free after its answer."""


class Part:
    """An answer, and what becomes of it."""

    def __init__(self, wait_s: float = LIMIT_S) -> None:
        self.outcome: Future[str] = Future()
        self.log: list[str] = []
        held, call = ExitStack(), ExitStack()
        held.enter_context(self._logged("held"))
        call.enter_context(self._logged("call"))
        self.later = Later(self.outcome, str.encode, wait_s, self.expire, self.give_up, held)
        self.later.within(call, lambda data: self.log.append(f"sent {data.decode()}"))

    @contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.log.append(f"{what} ends with {type(error).__name__}")
            raise
        self.log.append(f"{what} ends")

    def expire(self) -> None:
        self.log.append("expires")
        self.outcome.set_exception(ps.DeadlineExceeded("too late"))

    def give_up(self) -> None:
        self.log.append("gives up")
        self.outcome.cancel()


def test_it_lets_go_of_all_when_it_is_taken() -> None:
    part = Part()
    assert not part.later.ready
    part.outcome.set_result("yes")
    assert part.later.ready
    assert part.later.take() == b"yes"
    assert part.log == ["sent yes", "held ends", "call ends"]
    part.later.give_up()
    part.later.expire()
    assert len(part.log) == 3, "there is nothing to do after the end"


@pytest.mark.parametrize(("error", "name"), [(ps.Unavailable("no"), "Unavailable"), (None, "CancelledError")])
def test_an_error_passes_through_what_it_holds(error: ps.PsError | None, name: str) -> None:
    part = Part()
    if error is None:
        part.later.give_up()
    else:
        part.outcome.set_exception(error)
    with pytest.raises(CancelledError if error is None else type(error)):
        part.later.take()
    assert part.log[-2:] == [f"held ends with {name}", f"call ends with {name}"]


def test_whoever_waits_has_it_expire() -> None:
    part = Part(wait_s=0.01)
    with pytest.raises(ps.DeadlineExceeded):
        part.later.wait()
    assert part.log[0] == "expires"


def test_whoever_is_interrupted_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(timeout: float) -> None:
        raise KeyboardInterrupt

    part = Part()
    monkeypatch.setattr(part.outcome, "exception", interrupted)
    with pytest.raises(KeyboardInterrupt):
        part.later.wait()
    assert part.log == ["gives up", "held ends with KeyboardInterrupt", "call ends with KeyboardInterrupt"]


def test_what_was_sent_is_free_without_a_collection_of_cycles() -> None:
    outcome: Future[str] = Future()
    sent = Sent()
    freed = weakref.ref(sent)
    later = Later(outcome, str.encode, 1.0, partial(id, sent), partial(id, sent), ExitStack())  # type: ignore[arg-type]
    later.when_ready(partial(getattr, later, "ready"))  # as a server's, it refers back
    gc.disable()
    try:
        outcome.set_result("yes")
        later.take()
        del sent
        assert freed() is None
        whole = weakref.ref(later)
        del later, outcome
        assert whole() is None
    finally:
        gc.enable()


def test_answers_expire_in_the_order_of_their_times_but_for_those_that_have_ended() -> None:
    clock = ByHand()
    expiries = Expiries(clock)
    late, soon, ended = Part(1000.0), Part(200.0), Part(100.0)
    try:
        expiries.add(late.later)
        expiries.add(ended.later)
        expiries.discard(ended.later)
        soon_at = clock.now + 200.0
        expiries.add(soon.later)
        until(lambda: expiries._sleeps_until == soon_at)
        clock.now += 199.0
        assert soon.log == []
        clock.now += 1.0
        until(lambda: soon.log == ["expires"])
        assert (late.log, ended.log) == ([], [])
    finally:
        expiries.close()
