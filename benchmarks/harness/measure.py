"""Measures by interleaved rounds and medians, and reports the figures. What is measured is in the other files.

Two things are compared by running them in turn, round by round, in one process tree: a slow moment of the machine then
meets both. A ratio is taken per round, and the median of the rounds is reported, with the smallest and the largest.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
WARM_UP_ROUNDS = 2


@dataclass(frozen=True)
class Sizes:
    """How large a benchmark is."""

    rows: int = 2_000_000
    """Rows of a table."""
    batch: int = 100_000
    """Ids of a step."""
    dim: int = 64
    rounds: int = 25
    scale_rows: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    """Table sizes that `scale` compares."""
    swap_rows: int = 4_000_000
    """Rows of the table that `swap` trains."""
    trace_accesses: int = 1_250_000
    """How many accesses of a trace `trace` replays, from its start."""
    evict_samples: int = 1_700_000
    """Samples that `evict` learns from, in each of its runs."""
    evict_ids: int = 20_000_000
    """Ids that the samples of `evict` are drawn from."""
    tt_rows: int = 10_000_000
    """Rows that the cores of `ttspeed` stand for."""
    ttquality_samples: int = 40_000
    """Samples of a pass of `ttquality`, planted and real ones alike."""
    ttquality_scale: int = 50
    """The number by which `ttquality` divides Criteo's cardinalities."""
    ttquality_seeds: int = 3
    dctquality_samples: int = 300_000
    """Planted clicks of a pass of `dctquality`."""
    dctquality_ids: int = 500_000
    """Ids that the planted clicks are drawn from."""
    dctquality_flights: int | None = None
    """Flights of a pass; None is the whole year."""
    dctquality_bags: int = 400_000
    """Samples of a pass over long bags."""
    dctquality_bag_ids: int = 100_000
    """Ids that the bags are drawn from."""
    dctquality_seeds: int = 3
    bursty_samples: int = 200_000
    """Planted clicks of a pass over ids that come in bursts."""
    retail_lines: int | None = None
    """Lines of invoices of a pass, each of which is two samples; None is half a year."""
    movielens_ratings: int | None = None
    """Ratings of films of a pass; None is all."""
    starts: int = 5
    """Processes that `startup` starts."""
    wire_ids: int = 10_000_000
    """Ids of the table that `wirebytes` trains."""
    wire_steps: int = 8
    """Steps whose bytes `wirebytes` counts in each case; they hardly differ."""
    wire_warm_up: int = 40
    """Steps before the counted ones, at most."""


QUICK = Sizes(
    rows=20_000,
    batch=2_000,
    dim=64,
    rounds=3,
    scale_rows=(2_000, 20_000),
    swap_rows=20_000,
    trace_accesses=4_000,
    evict_samples=20_000,
    evict_ids=20_000,
    tt_rows=20_000,
    ttquality_samples=2_048,
    ttquality_scale=2_000,
    ttquality_seeds=1,
    dctquality_samples=4_096,
    dctquality_ids=20_000,
    dctquality_flights=4_096,
    dctquality_bags=4_096,
    dctquality_bag_ids=4_000,
    dctquality_seeds=1,
    bursty_samples=4_096,
    retail_lines=2_048,
    movielens_ratings=2_048,
    starts=1,
    wire_ids=20_000,
    wire_steps=2,
    wire_warm_up=3,
)
"""Sizes for tests: every path runs, and the figures mean nothing."""

FULL = Sizes(rows=10_000_000)
"""Tables that do not fit into any cache."""


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


class Report:
    """Prints one line for each figure as soon as it is known."""

    def __init__(self, bench: str, as_json: bool) -> None:
        self._bench = bench
        self._as_json = as_json

    def add(self, case: str, metric: str, values: float | Sequence[float]) -> None:
        """Adds the median of the values; in the text form also the smallest and the largest."""
        several = [values] if isinstance(values, int | float) else list(values)
        median = statistics.median(several)
        if self._as_json:
            line = json.dumps({"bench": self._bench, "case": case, "metric": metric, "value": _rounded(median)})
        else:
            span = f"  {_shown(min(several))} .. {_shown(max(several))}" if len(several) > 1 else ""
            line = f"{self._bench:8} {case:26} {metric:34} {_shown(median):>14}{span}"
        print(line, flush=True)


def header(sizes: Sizes) -> dict[str, Any]:
    """Says where and with what the figures were measured."""
    return {
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "grpcio")},
        "sizes": asdict(sizes),
    }


def print_header(sizes: Sizes, as_json: bool) -> None:
    """Prints the header as text above the figures; with JSON it goes to stderr, so that every line of stdout is a
    figure."""
    found = header(sizes)
    if as_json:
        print(json.dumps(found), file=sys.stderr, flush=True)
        return
    for name, value in found.items():
        print(f"# {name}: {value}")
    print(f"# {'bench':6} {'case':26} {'metric':34} {'median':>14}  min .. max", flush=True)


def rss_bytes(pid: int | str = "self") -> int:
    """Returns the resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no VmRSS: it has ended")


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    found = git("rev-parse", "--short", "HEAD")
    return (found or "unknown") + (" with changes" if git("status", "--porcelain", "--", "ps") else "")


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
