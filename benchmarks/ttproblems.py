"""What `ttquality` trains on: two streams of clicks, and which of their tables are large enough for cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from benchmarks.measure import Sizes
from benchmarks.problems.flights import Year
from worker.data.batch import Bags, Batch, FeatureSpec
from worker.data.source import Source

KAGGLE = (
    *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10),
    *(5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
)
"""Ids of the 26 features of Criteo's Kaggle set."""
LARGE = 100_000
"""Tables of so many ids in the Kaggle set get cores, as in the paper: seven."""
LEAST = 3
"""Ids of a feature, however far the set is scaled down."""


@dataclass(frozen=True)
class LargeTable:
    """One that gets cores."""

    ids: int
    """That occur, or could."""
    rows: int
    """That the cores stand for."""
    index: Literal["dense", "hash"]


class Problem(Protocol):
    """A stream of clicks and its tables."""

    name: str
    row_lr: float
    """Of rows, Adagrad's: within 0.0002 AUC of the best without cores, on a seed that no figure is from."""
    hot_share: float
    """Rows outside of the cores, as a share of the ids."""
    large: dict[str, LargeTable]
    small: dict[str, int]
    """Ids of the tables that are the same in every case."""

    def source(self, seed: int) -> Source:
        """The stream; where the data is real, the same for every seed."""
        ...

    def window(self) -> slice:
        """The rows that are judged: predictions before training, after the model has seen something."""
        ...


class Planted:
    """Synthetic clicks with the cardinalities of Criteo's Kaggle set, all divided by one number, and the measured skew.
    An id's effect is drawn for it alone: ids have no order that cores could profit by."""

    name = "synthetic"
    row_lr = 0.02
    hot_share = 0.01

    def __init__(self, samples: int, scale: int) -> None:
        self.samples = samples
        self.cardinalities = tuple(max(n // scale, min(n, LEAST)) for n in KAGGLE)
        names = [f"C{field}" for field in range(1, len(KAGGLE) + 1)]
        sizes = dict(zip(names, self.cardinalities, strict=True))
        chosen = {name for name, n in zip(names, KAGGLE, strict=True) if n >= LARGE}
        self.large = {name: LargeTable(n, n, "dense") for name, n in sizes.items() if name in chosen}
        self.small = {name: n for name, n in sizes.items() if name not in chosen}

    def source(self, seed: int) -> Source:
        """Another teacher, other clicks and other popular ids for each seed."""
        from worker.data.synthetic import Synthetic

        source = Synthetic(rows=self.samples, seed=seed, cardinalities=self.cardinalities)
        return FromZero(source, self.cardinalities)

    def window(self) -> slice:
        """The second half."""
        return slice(self.samples // 2, None)


class FromZero:
    """A `Source` whose ids begin at 0 in every feature, as rows of a dense table do."""

    def __init__(self, source: Source, cardinalities: tuple[int, ...]) -> None:
        self._source = source
        firsts = np.cumsum([0, *cardinalities[:-1]])
        self._first = {spec.name: int(first) for spec, first in zip(source.features, firsts, strict=True)}
        self.name, self.n_dense, self.len_rows = source.name, source.n_dense, source.len_rows
        self.features: tuple[FeatureSpec, ...] = source.features
        self.windows, self.remarks = source.windows, source.remarks

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """As those of the source."""
        for batch in self._source.batches(batch_size):
            shifted = {
                name: Bags(bags.ids - self._first[name], bags.offsets, bags.weights)
                for name, bags in batch.sparse.items()
            }
            yield replace(batch, sparse=shifted)


class Flights(Year):
    """Its hashed crosses are one table of about 100,000 ids; the cores stand for twice as many rows, since ids meet in
    them by their hashes."""

    hot_share = 0.05

    def __init__(self, samples: int | None = None) -> None:
        super().__init__(samples)
        counts = self._count()
        self.large = {"cross": LargeTable(counts["cross"], 2 * counts["cross"], "hash")}
        self.small = {"field": counts["field"]}

    def _count(self) -> dict[str, int]:
        """Ids by table."""
        (whole,) = self._data.batches(self._data.len_rows)
        found: dict[str, int] = {}
        for spec in self._data.features:
            found[spec.table] = found.get(spec.table, 0) + len(np.unique(whole.sparse[spec.name].ids.numpy()))
        return found


def problems(sizes: Sizes) -> list[Problem]:
    """Both."""
    return [Planted(sizes.ttquality_samples, sizes.ttquality_scale), Flights(sizes.ttquality_flights)]


def floats(problem: Problem, dim: int) -> int:
    """Of all its tables without cores, every id with a row."""
    return dim * (sum(problem.small.values()) + sum(large.ids for large in problem.large.values()))
