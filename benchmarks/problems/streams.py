"""All streams, in the sizes of a benchmark."""

from __future__ import annotations

from benchmarks.harness.sizes import Sizes
from benchmarks.problems.bursty import Bursty
from benchmarks.problems.flights import Year
from benchmarks.problems.movielens import MovieLens
from benchmarks.problems.planted import Planted
from benchmarks.problems.retail import Retail
from benchmarks.problems.stream import Stream, present


def streams(benchmark: str, sizes: Sizes) -> list[Stream]:
    """Returns the streams whose data is there. `benchmark` is the name under which missing data is reported."""
    return present(
        benchmark,
        [
            lambda: Planted(sizes.dctquality_samples, sizes.dctquality_ids),
            lambda: Bursty(sizes.bursty_samples),
            lambda: Year(sizes.dctquality_flights),
            lambda: Retail(sizes.retail_lines),
            lambda: MovieLens(sizes.movielens_ratings),
        ],
    )
