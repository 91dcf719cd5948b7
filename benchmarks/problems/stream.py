"""The interface of the streams that benchmarks of quality learn from, and the streams by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from ps.nn.batch import Batch, FeatureSpec
from worker.data.columns import Columns, rebatch
from worker.data.errors import MissingDependency
from worker.data.source import Source


class Stream(Protocol):
    """Labelled samples in the order of time."""

    name: str
    batch: int
    """Samples of a step: so many that a pass has hundreds of steps."""
    row_lr: float
    """The learning rate of rows (Adagrad) where everything is pushed, found on a seed that no figure is from."""

    def source(self, seed: int) -> Source:
        """Returns the samples; where the data is real they are the same for every seed."""
        ...

    def window(self) -> slice:
        """Returns the rows that are judged: their predictions are made before training on them, after the model has
        seen something."""
        ...


class InMemory:
    """A `Source` of columns that are all in memory."""

    def __init__(self, name: str, features: Sequence[FeatureSpec], columns: Columns) -> None:
        self.name, self.features, self._columns = name, tuple(features), columns

    @property
    def n_dense(self) -> int:
        """The width of the dense part."""
        return int(self._columns.dense.shape[1])

    @property
    def len_rows(self) -> int:
        """The number of rows."""
        return len(self._columns)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields the same batches at every call, sharing one memory: do not write into a batch."""
        return rebatch([self._columns], batch_size, self.features)

    def windows(self) -> Mapping[str, slice]:
        """Judges the second half."""
        return {"second half": slice(self.len_rows // 2, self.len_rows)}

    def remarks(self) -> Sequence[str]:
        """Has no remarks."""
        return ()


class Head:
    """The first rows of a `Source`, in whole batches."""

    def __init__(self, source: Source, rows: int) -> None:
        self._source = source
        self.name, self.n_dense, self.len_rows = source.name, source.n_dense, rows
        self.features: tuple[FeatureSpec, ...] = source.features
        self.windows, self.remarks = source.windows, source.remarks

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields whole batches."""
        for number, batch in enumerate(self._source.batches(batch_size)):
            if (number + 1) * batch_size > self.len_rows:
                return
            yield batch


def present(benchmark: str, makers: Sequence[Callable[[], Stream]]) -> list[Stream]:
    """Returns the streams whose data is on this machine; for each other one it prints on stderr what is missing."""
    found = []
    for make in makers:
        try:
            found.append(make())
        except MissingDependency as missing:
            print(f"# {benchmark}: a stream is passed over: {missing}", file=sys.stderr, flush=True)
    return found
