"""Ctrl-C ends a run, also where Python drops its KeyboardInterrupt."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import StartServer
from worker.train.interruption import Interruption, remembered
from worker.train.run import ALONE, run
from worker.train.settings import Data, Settings


class Finalized:
    """Calls a function where nothing can be raised: while it is freed."""

    def __init__(self, function: Callable[[], object]) -> None:
        weakref.finalize(self, function)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def pythons_handler() -> Iterator[None]:
    """A shell that starts the tests in the background has SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_python_drops_is_remembered() -> None:
    with remembered() as interruption:
        interruption.check()
        one = Finalized(press)
        del one  # prints "Exception ignored in"
        with pytest.raises(KeyboardInterrupt):
            interruption.check()


def test_it_is_raised_at_once_where_python_can_and_the_handler_is_pythons_again_afterwards() -> None:
    with pytest.raises(KeyboardInterrupt), remembered():
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_who_handles_it_otherwise_keeps_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with remembered() as interruption:
            press()
        interruption.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_ends_between_two_batches(start_server: StartServer) -> None:
    interruption = Interruption()
    with pytest.raises(KeyboardInterrupt):
        interruption.press(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        run(
            ALONE, Settings(data=Data("synthetic", rows=2000), dim=2), start_server().address, interruption=interruption
        )
