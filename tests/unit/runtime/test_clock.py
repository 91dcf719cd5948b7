"""The real clock and the real entropy, which all else is given in place of."""

from __future__ import annotations

import random
import threading
import time

from ps.runtime.clock import SYSTEM_CLOCK
from ps.runtime.entropy import SYSTEM_ENTROPY


def test_a_reading_costs_no_frame() -> None:
    """The engine reads the clock three times a task."""
    assert SYSTEM_CLOCK.monotonic is time.monotonic


def test_what_has_happened_is_not_waited_for() -> None:
    happened, never = threading.Event(), threading.Event()
    happened.set()
    assert SYSTEM_CLOCK.wait(happened, 1e6)
    assert not SYSTEM_CLOCK.wait(never, 0.001)
    with (changed := threading.Condition()):
        assert not SYSTEM_CLOCK.wait(changed, 0.001)


def test_a_seed_of_the_trainers_makes_no_two_draws_alike() -> None:
    drawn = set()
    for _ in range(2):
        random.seed(7)
        drawn.add(SYSTEM_ENTROPY.getrandbits(63))
    assert len(drawn) == 2
