"""The streams of clicks that `ttquality` trains on, and which of their tables are large enough for cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, Protocol

import numpy as np
import torch

from benchmarks.harness.sizes import Sizes
from benchmarks.problems.bursty import Bursty
from benchmarks.problems.flights import Year
from benchmarks.problems.movielens import MovieLens
from benchmarks.problems.retail import Retail
from benchmarks.problems.stream import Stream, present
from ps.nn.batch import Bags, Batch, FeatureSpec
from worker.data.source import Source

KAGGLE = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10),
    *(5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
"""The number of ids of each of the 26 features of Criteo's Kaggle set."""
LARGE = 100_000
"""Tables with at least so many ids in the Kaggle set get cores, as in the paper: there are seven."""
LEAST = 3
"""The least number of ids of a feature, however far the set is scaled down."""
LARGE_SHARE = 0.1
"""Tables with at least this share of a stream's ids get cores."""


@dataclass(frozen=True)
class LargeTable:
    """A table that gets cores."""

    ids: int
    """The number of ids that occur, or could."""
    rows: int
    """The number of rows that the cores stand for."""
    index: Literal["dense", "hash"]


class Problem(Stream, Protocol):
    """A stream of clicks and its tables."""

    large: dict[str, LargeTable]
    small: dict[str, int]
    """The number of ids of the tables that are the same in every case."""


class Planted:
    """Synthetic clicks with the cardinalities of Criteo's Kaggle set, all divided by one number, and the measured skew.
    The effect of an id is drawn for it alone: ids have no order that cores could profit by."""

    name = "synthetic"
    batch = 1024
    row_lr = 0.02

    def __init__(self, samples: int, scale: int) -> None:
        self.samples = samples
        self.cardinalities = tuple(max(n // scale, min(n, LEAST)) for n in KAGGLE)
        names = [f"C{field}" for field in range(1, len(KAGGLE) + 1)]
        sizes = dict(zip(names, self.cardinalities, strict=True))
        chosen = {name for name, n in zip(names, KAGGLE, strict=True) if n >= LARGE}
        self.large = {name: LargeTable(n, n, "dense") for name, n in sizes.items() if name in chosen}
        self.small = {name: n for name, n in sizes.items() if name not in chosen}

    def source(self, seed: int) -> Source:
        """Returns a stream with another teacher, other clicks and other popular ids for each seed."""
        from worker.data.synthetic import Synthetic

        source = Synthetic(rows=self.samples, seed=seed, cardinalities=self.cardinalities)
        firsts = np.cumsum([0, *self.cardinalities[:-1]])
        return Renamed(
            source,
            {
                spec.name: partial(_less, first=int(first))  # ids begin at 0 in every feature, as rows of a table do
                for spec, first in zip(source.features, firsts, strict=True)
            },
        )

    def window(self) -> slice:
        """Judges the second half."""
        return slice(self.samples // 2, None)


class Counted:
    """A stream whose ids are counted, table by table. Cores stand for twice as many rows, since ids meet in them by
    their hashes."""

    def __init__(self, stream: Stream) -> None:
        self.name, self.batch, self.row_lr = stream.name, stream.batch, stream.row_lr
        self.source, self.window = stream.source, stream.window
        found: dict[str, list[np.ndarray]] = {}
        source = stream.source(0)
        for batch in source.batches(stream.batch):
            for spec in source.features:
                found.setdefault(spec.table, []).append(np.unique(batch.sparse[spec.name].ids.numpy()))
        counts = {table: len(np.unique(np.concatenate(parts))) for table, parts in found.items()}
        least = LARGE_SHARE * sum(counts.values())
        self.large = {table: LargeTable(n, 2 * n, "hash") for table, n in counts.items() if n >= least}
        self.small = {table: n for table, n in counts.items() if n < least}


class Renamed:
    """A `Source` in which some features have other ids."""

    def __init__(self, source: Source, renamed: Mapping[str, Callable[[np.ndarray], np.ndarray]]) -> None:
        """`renamed` gives, by feature, the new ids of ids."""
        self._source, self._renamed = source, renamed
        self.name, self.n_dense, self.len_rows = source.name, source.n_dense, source.len_rows
        self.features: tuple[FeatureSpec, ...] = source.features
        self.windows, self.remarks = source.windows, source.remarks

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields the batches of the source, with the new ids."""
        for batch in self._source.batches(batch_size):
            yield replace(batch, sparse={name: self._bags(name, bags) for name, bags in batch.sparse.items()})

    def _bags(self, name: str, bags: Bags) -> Bags:
        if name not in self._renamed:
            return bags
        return Bags(torch.from_numpy(self._renamed[name](bags.ids.numpy())), bags.offsets, bags.weights)


def _less(ids_N: np.ndarray, first: int) -> np.ndarray:
    return ids_N - first


def problems(sizes: Sizes) -> list[Problem]:
    """Returns the planted problems, and the real ones whose data is there."""
    half = sizes.ttquality_samples // 2
    real: Sequence[Callable[[], Stream]] = (
        lambda: Bursty(sizes.ttquality_samples),
        lambda: Year(sizes.ttquality_samples),
        lambda: Retail(half),
        lambda: MovieLens(sizes.ttquality_samples),
    )
    planted = Planted(sizes.ttquality_samples, sizes.ttquality_scale)
    return [planted, *(Counted(stream) for stream in present("ttquality", real))]


def floats(problem: Problem, dim: int) -> int:
    """Counts the floats of the large tables of a problem where every id has a row."""
    return dim * sum(large.ids for large in problem.large.values())
