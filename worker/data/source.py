"""The protocol of a data source: what the trainer asks of flights, Criteo and synthetic alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ps.nn.batch import Batch, FeatureSpec


class Source(Protocol):
    """A stream of labelled rows in a fixed order. Iterating again starts from the first row."""

    @property
    def name(self) -> str:
        """What a progress bar shows."""
        ...

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The sparse features, in the order in which a model stacks them."""
        ...

    @property
    def n_dense(self) -> int:
        """Width of `Batch.dense`."""
        ...

    @property
    def len_rows(self) -> int | None:
        """How many rows there are; None where only reading to the end would tell."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields all rows, `batch_size` at a time; the last batch holds what is left. Raises `InvalidArgument` below
        1."""
        ...

    def windows(self) -> Mapping[str, slice]:
        """Stretches of rows that deserve a metric of their own, by name, as positions in the stream."""
        ...

    def remarks(self) -> Sequence[str]:
        """Lines worth printing after a pass: what was skipped, what could be reached at best."""
        ...
