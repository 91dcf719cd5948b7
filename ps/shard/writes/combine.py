"""Sums several ranks' gradients of one table: the same bytes in whatever order they came."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts
from ps.errors import NonFiniteGradient
from ps.kernels.index.unique import unique
from ps.kernels.rows.rows import all_finite
from ps.shard.requests import Gradients, TableIds

COUNTS_MAX = np.iinfo(np.uint32).max


def combined(ids: Sequence[TableIds], gradients: Sequence[Gradients], dim: int) -> tuple[TableIds, Gradients]:
    """Returns all ids in the order of the ranks, each once, with the sums over the ranks of its gradient, counts and
    positives.

    ids, gradients: of one table, by rank. Sums are float32, added in the order of the ranks. An id that no rank sends
    a gradient of is used and not updated. Raises NonFiniteGradient where a sum overflows.
    """
    table = ids[0].table
    ids_U, inverse_N, _ = unique(np.concatenate([part.ids_N for part in ids]))
    places = np.split(inverse_N, np.cumsum([len(part.ids_N) for part in ids])[:-1])
    sums_UD = np.zeros((len(ids_U), dim), np.float32)
    given_U = np.zeros(len(ids_U), np.bool_)
    for places_N, part in zip(places, gradients, strict=True):
        _add(sums_UD, given_U, places_N if part.rows_R is None else places_N[part.rows_R], part)
    if not all_finite(sums_UD.reshape(-1)):
        raise NonFiniteGradient(
            f"table {table!r}: a gradient summed over {len(ids)} ranks is beyond float32; nothing was applied (clip "
            "the gradients)"
        )
    counts_U = _totals(len(ids_U), places, [part.counts_N for part in ids], absent=1)
    positives = [part.positives_N for part in gradients]
    positives_U = None if all(p is None for p in positives) else _totals(len(ids_U), places, positives, absent=0)
    union = TableIds(table, ids_U, counts_U)
    if given_U.all():
        return union, Gradients(table, [sums_UD], positives_U)
    rows_R = np.flatnonzero(given_U)
    return union, Gradients(table, [sums_UD[rows_R]], positives_U, rows_R, len(ids_U))


def _add(
    sums_UD: npt.NDArray[np.float32],
    given_U: npt.NDArray[np.bool_],
    places_R: npt.NDArray[np.int64],
    part: Gradients,
) -> None:
    """Adds the gradients of one rank, whose ids are unique."""
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):  # told by the caller
        for block_RD in part.blocks:
            end = start + len(block_RD)
            sums_UD[places_R[start:end]] += block_RD
            start = end
    given_U[places_R] = True


def _totals(n: int, places: Sequence[npt.NDArray[np.int64]], counts: Sequence[Counts | None], absent: int) -> Counts:
    """Returns the sums, uint32 [n], of the numbers of each rank; `absent` counts for every id of a rank that has
    none."""
    totals_U = np.zeros(n, np.int64)
    for places_N, counts_N in zip(places, counts, strict=True):
        totals_U[places_N] += absent if counts_N is None else counts_N.astype(np.int64)
    return np.minimum(totals_U, COUNTS_MAX).astype(np.uint32)
