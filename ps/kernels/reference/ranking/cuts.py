"""`ps.kernels.ranking.cuts`, in numpy. Integers: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ints, Slots
from ps.kernels.ranking.score import Marks, Ranks, Statistics
from ps.kernels.reference.ranking.score import LOT, first_of, ranks


def met(
    statistics_N2: Statistics,
    per_tick: int,
    stamps_C: Ranks,
    ranks_C: Ranks,
    stamps_LC: Ints,
    ranks_LC: Ints,
    out_N: npt.NDArray[np.bool_],
) -> None:
    """out[i] = whether any cut, of all rows or of its lot, is later than the row and as high as its rank or higher."""
    ranks_N = np.empty(len(statistics_N2), np.int64)
    ranks(statistics_N2, per_tick, ranks_N)
    stamps_N1, ranks_N1 = statistics_N2[:, 1].astype(np.int64)[:, None], ranks_N[:, None]
    lots_N = (statistics_N2[:, 0] & LOT).astype(np.int64)
    out_N[:] = ((stamps_N1 < stamps_C) & (ranks_N1 <= ranks_C)).any(axis=1)
    out_N |= ((stamps_N1 < stamps_LC[lots_N]) & (ranks_N1 <= ranks_LC[lots_N])).any(axis=1)


def select_met(
    statistics_S2: Statistics,
    marks_S: Marks,
    start: int,
    end: int,
    per_tick: int,
    stamps_C: Ranks,
    ranks_C: Ranks,
    stamps_LC: Ints,
    ranks_LC: Ints,
    out_N: Slots,
) -> tuple[int, int]:
    """Slots in [start, end) that are used and met by a cut; how many, and where it stopped."""
    met_S = np.zeros(len(marks_S), np.bool_)
    met(statistics_S2, per_tick, stamps_C, ranks_C, stamps_LC, ranks_LC, met_S)
    return first_of(start + np.flatnonzero((met_S & (marks_S & 1 != 0))[start:end]), start, end, out_N)
