"""Measures contenders in interleaved rounds.

Two things are compared by running them in turn, round by round, in one process tree: a slow moment of the machine then
meets both. A ratio is taken per round, and the median of the rounds is reported, with the smallest and the largest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Contender:
    """One of the things that are compared. `before(turn)` is not timed; what it returns is given to `run`.

    Turns are counted over all contenders: who chooses ids by the turn never reads rows that another has just read.
    """

    run: Callable[[Any], object]
    before: Callable[[int], Any] = lambda turn: turn


@dataclass(frozen=True)
class Rounds:
    """The seconds of each contender, round by round."""

    seconds: Mapping[str, Sequence[float]]

    def per_second(self, name: str, amount: float) -> list[float]:
        """Returns the work a second of a contender whose run does `amount` of work."""
        return [amount / s for s in self.seconds[name]]

    def speed_ratio(self, name: str, other: str) -> list[float]:
        """Returns how many times as fast as `other` a contender is: above 1 is faster."""
        return [theirs / ours for ours, theirs in zip(self.seconds[name], self.seconds[other], strict=True)]

    def time_share(self, name: str, whole: str) -> list[float]:
        """Returns the time of `name` as a share of the time of `whole`."""
        return [part / all_ for part, all_ in zip(self.seconds[name], self.seconds[whole], strict=True)]


def interleave(rounds: int, contenders: Mapping[str, Contender], warm_up: int = WARM_UP_ROUNDS) -> Rounds:
    """Runs all contenders in every round, in an order that turns, so that none always follows the same neighbour."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    turns = itertools.count()
    for number in range(-warm_up, rounds):
        order = list(contenders.items())
        for name, contender in order if number % 2 else reversed(order):
            given = contender.before(next(turns))
            started = time.perf_counter()
            contender.run(given)
            elapsed = time.perf_counter() - started
            if number >= 0:
                seconds[name].append(elapsed)
    return Rounds(seconds)


def rss_bytes(pid: int | str = "self") -> int:
    """Returns the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmRSS: it has ended")
