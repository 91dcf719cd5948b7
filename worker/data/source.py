"""The protocol of a data source, which flights, Criteo and synthetic clicks all follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ps.nn.batch import Batch, FeatureSpec


class Source(Protocol):
    """A stream of labelled rows in a fixed order. Iterating again starts from the first row."""

    @property
    def name(self) -> str:
        """The name that a progress bar shows."""
        ...

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The sparse features, in the order in which a model stacks them."""
        ...

    @property
    def n_dense(self) -> int:
        """The width of `Batch.dense`."""
        ...

    @property
    def len_rows(self) -> int | None:
        """How many rows there are; None if that is not known before all are read."""
        ...

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields all rows, `batch_size` at a time; the last batch has the rest. Raises `InvalidArgument` for a batch
        size below 1."""
        ...

    def windows(self) -> Mapping[str, slice]:
        """Returns stretches of rows that deserve a metric of their own: name -> positions in the stream."""
        ...

    def remarks(self) -> Sequence[str]:
        """Returns lines worth printing after a pass, for example what was skipped, or which AUC could be reached at
        best."""
        ...
