"""Columns of numpy, and how batches are made of them: the one place where data crosses from numpy to torch.

A source makes blocks as large as suits it; `rebatch` cuts them into batches of the size a trainer asked for. So what
a source yields does not depend on the batch size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ps.errors import InvalidArgument
from ps.nn.batch import Bags, Batch, FeatureSpec


@dataclass(frozen=True)
class Columns:
    """B samples with one id for each feature. dense: float32 [B, n_dense]. ids: int64 [F, B]. labels: float32 [B], 0 or
    1.

    Ids lie by feature, so that each feature's part of a batch is a contiguous view.
    """

    dense: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, start: int, stop: int) -> Columns:
        """Returns views of the rows from `start` up to `stop`."""
        return Columns(self.dense[start:stop], self.ids[:, start:stop], self.labels[start:stop])


def concatenate(parts: Sequence[Columns]) -> Columns:
    """Returns the rows of all parts, in order. One part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    return Columns(
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.ids for part in parts], axis=1),
        np.concatenate([part.labels for part in parts]),
    )


def rebatch(blocks: Iterable[Columns], batch_size: int, features: Sequence[FeatureSpec]) -> Iterator[Batch]:
    """Cuts blocks of any sizes into batches of `batch_size` rows; the last one holds what is left.

    Raises `InvalidArgument` at once, not at the first batch, if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InvalidArgument(f"batch_size is {batch_size}; it must be 1 or more")
    return _rebatch(blocks, batch_size, features)


def _rebatch(blocks: Iterable[Columns], batch_size: int, features: Sequence[FeatureSpec]) -> Iterator[Batch]:
    held: list[Columns] = []  # fewer rows than a batch
    missing = batch_size
    for block in blocks:
        start = 0
        while len(block) - start >= missing:
            held.append(block.rows(start, start + missing))
            start += missing
            yield to_batch(concatenate(held), features)
            held, missing = [], batch_size
        if start < len(block):
            held.append(block.rows(start, len(block)))
            missing -= len(block) - start
    if held:
        yield to_batch(concatenate(held), features)


def to_batch(columns: Columns, features: Sequence[FeatureSpec]) -> Batch:
    """Returns the same memory as torch tensors."""
    offsets_B = torch.arange(len(columns))
    return Batch(
        dense=torch.from_numpy(columns.dense),
        sparse={
            feature.name: Bags(torch.from_numpy(ids_B), offsets_B)
            for feature, ids_B in zip(features, columns.ids, strict=True)
        },
        labels=torch.from_numpy(columns.labels),
    )
