"""The gradients of one table in one step, and the sum of those of several batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ps import PooledBags
from ps.arrays import Counts, Flags, Ids
from ps.kernels.index.unique import segment_sum, unique
from ps.kernels.rows.bags import spread

Placed = tuple[Ids | slice, Ids | slice]
"""For each of two parts, the positions of its ids among the ids of both."""
ALL = slice(None)

COUNTS_MAX = np.iinfo(np.uint32).max


@dataclass(frozen=True, eq=False)
class TableGradients:
    """Gradients of one table's rows, with what is known of these rows."""

    ids_U: Ids
    """Unique ids, in the order of their first occurrence."""
    counts_U: Counts
    """How often each id occurs in the batches."""
    grads: torch.Tensor
    """float32 [U, D], one gradient for each row; with `bags` float32 [B, D], one for each bag's sum."""
    rows: torch.Tensor | None = None
    """float32 [U, D], the rows as pulled; None where sums were pulled."""
    exists_U: Flags | None = None
    """Which ids had a row when they were pulled; None: not asked."""
    important_U: Flags | None = None
    """Which rows were among the most important; None: not asked."""
    positives_U: Counts | None = None
    """How often each id occurs in positive samples; None: never."""
    bags: PooledBags | None = None
    """The bags that the shards sum; None: the rows are pooled here."""

    def by_rows(self) -> TableGradients:
        """Returns these as gradients of rows: each row has the sum of the gradients of its bags, once for each time
        that it is in a bag."""
        if self.bags is None:
            return self
        grads_UD = np.zeros((len(self.ids_U), self.grads.shape[1]), np.float32)
        starts_K = np.concatenate(([0], np.cumsum(self.bags.lengths_B)))
        positions_P = self.bags.positions_P.astype(np.int32)
        every_B, used_U = np.arange(len(self.bags)), np.zeros(len(self.ids_U), np.bool_)
        spread(self.grads.numpy(), starts_K, positions_P, every_B, grads_UD, used_U)
        return replace(self, grads=torch.from_numpy(grads_UD), rows=None, bags=None)

    def only(self, rows_R: Ids) -> TableGradients:
        """Returns the gradients of some rows, given by position."""
        return TableGradients(
            self.ids_U[rows_R],
            self.counts_U[rows_R],
            self.grads[torch.from_numpy(rows_R)],
            None if self.rows is None else self.rows[torch.from_numpy(rows_R)],
            None if self.exists_U is None else self.exists_U[rows_R],
            None if self.important_U is None else self.important_U[rows_R],
            None if self.positives_U is None else self.positives_U[rows_R],
        )

    def and_again(self, other: TableGradients) -> TableGradients:
        """Returns the sum with other gradients of the very same rows, or bags."""
        counts_U = _counted(len(self.ids_U), (ALL, ALL), (self.counts_U, other.counts_U))
        positives_U = _positives(len(self.ids_U), (ALL, ALL), (self.positives_U, other.positives_U))
        return replace(self, counts_U=counts_U, positives_U=positives_U, grads=self.grads + other.grads)

    def and_those_of(self, other: TableGradients) -> TableGradients:
        """Returns the sum with gradients of other rows, which came later."""
        one, other = self.by_rows(), other.by_rows()
        ids_U, inverse_N, _ = unique(np.concatenate((one.ids_U, other.ids_U)))
        n, places = len(ids_U), (inverse_N[: len(one.ids_U)], inverse_N[len(one.ids_U) :])
        grads_UD = np.empty((n, one.grads.shape[1]), np.float32)
        segment_sum(torch.cat((one.grads, other.grads)).numpy(), inverse_N, grads_UD)
        return TableGradients(
            ids_U,
            _counted(n, places, (one.counts_U, other.counts_U)),
            torch.from_numpy(grads_UD),
            _latest(n, places, (one.rows, other.rows)),
            _either(n, places, (one.exists_U, other.exists_U)),
            _either(n, places, (one.important_U, other.important_U)),
            _positives(n, places, (one.positives_U, other.positives_U)),
        )


def _counted(n: int, places: Placed, parts: Sequence[Counts | None]) -> Counts:
    totals_U = np.zeros(n, np.int64)
    for places_N, counts_N in zip(places, parts, strict=True):
        totals_U[places_N] += 0 if counts_N is None else counts_N.astype(np.int64)
    return np.minimum(totals_U, COUNTS_MAX).astype(np.uint32)


def _positives(n: int, places: Placed, parts: Sequence[Counts | None]) -> Counts | None:
    return None if all(part is None for part in parts) else _counted(n, places, parts)


def _either(n: int, places: Placed, parts: Sequence[Flags | None]) -> Flags | None:
    flags_U = np.zeros(n, np.bool_)
    for places_N, flags_N in zip(places, parts, strict=True):
        if flags_N is None:
            return None
        flags_U[places_N] |= flags_N
    return flags_U


def _latest(n: int, places: Placed, parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    if any(part is None for part in parts):
        return None
    dim = parts[0].shape[1]  # type: ignore[union-attr]
    rows = torch.empty(n, dim)
    for places_N, part in zip(places, parts, strict=True):
        rows[torch.from_numpy(places_N)] = part  # type: ignore[assignment]
    return rows
