"""Which rows a cut has met: those whose stamp is below the cut's and whose rank is not above it.

A cut is the decision of one moment about all rows of a table, in RAM or on disk (`ps.storage.ram.cuts`). The kernels of
score and rank are in `ps.kernels.ranking.score`.

stamps_C, ranks_C: cuts of all rows. stamps_LC, ranks_LC: those of the rows of one lot, where a stamp of -1 is none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ints, Slots
from ps.kernels.kernel import helper, kernel
from ps.kernels.ranking.score import LOT_MASK, USED, Marks, Ranks, Statistics, rank_of


@helper()
def _met(
    bits: np.uint32,
    stamp: np.int64,
    per_tick: np.uint32,
    stamps_C: Ranks,
    ranks_C: Ranks,
    stamps_LC: Ints,
    ranks_LC: Ints,
) -> bool:
    rank = rank_of(bits, np.uint32(stamp), per_tick)
    cut = len(stamps_C) - 1
    while cut > 0 and stamps_C[cut - 1] > stamp:
        cut -= 1
    if cut >= 0 and stamp < stamps_C[cut] and rank <= ranks_C[cut]:
        return True
    lot = np.int64(bits & LOT_MASK)
    for c in range(stamps_LC.shape[1]):  # noqa: SIM110  numba has no any()
        if stamp < stamps_LC[lot, c] and rank <= ranks_LC[lot, c]:
            return True
    return False


@kernel()
def met(
    statistics_N2: Statistics,
    per_tick: np.uint32,
    stamps_C: Ranks,
    ranks_C: Ranks,
    stamps_LC: Ints,
    ranks_LC: Ints,
    out_N: npt.NDArray[np.bool_],
) -> None:
    """out[i] = whether row i is of rank ranks[c] or lower and its stamp is below stamps[c], for any c; or the same by
    the cuts of its lot, where a stamp of -1 is none.

    stamps_C rise, ranks_C fall: the first cut later than the stamp is the highest of those that count.
    """
    for i in range(len(out_N)):
        stamp = np.int64(statistics_N2[i, 1])
        out_N[i] = _met(statistics_N2[i, 0], stamp, per_tick, stamps_C, ranks_C, stamps_LC, ranks_LC)


@kernel()
def select_met(
    statistics_S2: Statistics,
    marks_S: Marks,
    start: int,
    end: int,
    per_tick: np.uint32,
    stamps_C: Ranks,
    ranks_C: Ranks,
    stamps_LC: Ints,
    ranks_LC: Ints,
    out_N: Slots,
) -> tuple[int, int]:
    """Slots in [start, end) that are used and whose rows a cut has met; returned as by `select`."""
    found = 0
    for s in range(start, end):
        if found == len(out_N):
            return found, s
        if marks_S[s] & np.uint16(USED):
            stamp = np.int64(statistics_S2[s, 1])
            if _met(statistics_S2[s, 0], stamp, per_tick, stamps_C, ranks_C, stamps_LC, ranks_LC):
                out_N[found] = s
                found += 1
    return found, end
