"""How large each benchmark is: for tests, by default, and for a full run."""

from __future__ import annotations

from dataclasses import dataclass


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
    kills: int = 30
    """Processes that `crash` kills; `--kills` sets it."""
    crash_rows: int = 20_000
    """Rows of each table of `crash`."""
    checkpoint_rows: int = 10_000_000
    """Rows that `checkpoint` saves and restores, of dim 64; `--rows` sets it."""


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
    kills=3,
    crash_rows=2_000,
    checkpoint_rows=20_000,
)
"""Sizes for tests: every path runs, and the figures mean nothing."""

FULL = Sizes(rows=10_000_000)
"""Tables that do not fit into any cache."""
