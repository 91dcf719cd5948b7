"""Where the bytes of a slot's row are, in a table whose rows are of two lengths.

places_S uint32 [S]: the place in a pool of rows, by slot; the top bit tells which pool, `HALF` that of half precision.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Slots
from ps.kernels.kernel import kernel
from ps.kernels.prefetch import AHEAD, prefetch

Places = npt.NDArray[np.uint32]

HALF = np.uint32(1 << 31)


@kernel()
def split(places_S: Places, slots_N: Slots, full_N: Slots, half_N: Slots) -> int:
    """full[i] and half[i] = the place of slot slots[i] in the pool that it is in, -1 in the other; a negative slot is
    in neither. Returns how many are half."""
    halves = 0
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N) and slots_N[i + AHEAD] >= 0:
            prefetch(places_S, slots_N[i + AHEAD])
        full_N[i] = half_N[i] = -1
        if slots_N[i] >= 0:
            place = places_S[slots_N[i]]
            if place & HALF:
                half_N[i] = np.int64(place ^ HALF)
                halves += 1
            else:
                full_N[i] = np.int64(place)
    return halves


@kernel()
def move(places_S: Places, end: int, half: np.uint32, first: int, moved_P: Places) -> None:
    """Rows of one pool (`half`: HALF or 0) have moved: a slot below `end` whose place is `first` + p has it at
    moved[p] from now on. Places before `first`, and behind `moved`, stay."""
    for s in range(end):
        place = places_S[s]
        if place & HALF == half:
            p = np.int64(place & ~HALF) - first
            if 0 <= p < len(moved_P):
                places_S[s] = moved_P[p] | half
