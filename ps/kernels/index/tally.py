"""A count for each of some ids: open addressing with linear probing, in an array of which half is empty, or more.

A count of 0 is an empty place. An id whose count falls to 0 leaves no mark behind: ids that were put behind it because
of it move up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids
from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel

Tally = npt.NDArray[np.int64]
"""(id, count) by place, of which there are a power of two."""


@helper()
def _home(id_: np.int64, secret: np.uint64, places: int) -> np.int64:
    """Returns the place where probing for an id begins."""
    return np.int64(mix64(np.uint64(id_) ^ secret) & np.uint64(places - 1))


@helper()
def _place(tally_P2: Tally, id_: np.int64, secret: np.uint64) -> np.int64:
    """Returns the place where an id is, or would be."""
    place: np.int64 = _home(id_, secret, len(tally_P2))
    while tally_P2[place, 1] and tally_P2[place, 0] != id_:
        place = (place + 1) & (len(tally_P2) - 1)
    return place


@helper()
def _vacate(tally_P2: Tally, place: np.int64, secret: np.uint64) -> None:
    """Empties a place, and fills it from behind as long as there are ids that began to probe at or before it."""
    mask = len(tally_P2) - 1
    after = place
    while True:
        after = (after + 1) & mask
        if not tally_P2[after, 1]:
            break
        home = _home(tally_P2[after, 0], secret, len(tally_P2))
        if (after - home) & mask >= (after - place) & mask:
            tally_P2[place, 0], tally_P2[place, 1] = tally_P2[after, 0], tally_P2[after, 1]
            place = after
    tally_P2[place, 1] = 0


@kernel()
def add(tally_P2: Tally, secret: np.uint64, ids_N: Ids, counts_N: Ids) -> int:
    """Adds to the counts of ids, of which any may be 0; returns how many ids are new. There is room for all."""
    new = 0
    for i in range(len(ids_N)):
        if counts_N[i]:
            place = _place(tally_P2, ids_N[i], secret)
            new += tally_P2[place, 1] == 0
            tally_P2[place, 0] = ids_N[i]
            tally_P2[place, 1] += counts_N[i]
    return new


@kernel()
def take(tally_P2: Tally, secret: np.uint64, ids_N: Ids, most: int, out_N: Ids) -> int:
    """Takes up to `most` from the count of each id: out[i] is how much that was. Returns how many ids are gone."""
    gone = 0
    for i in range(len(ids_N)):
        place = _place(tally_P2, ids_N[i], secret)
        out_N[i] = min(tally_P2[place, 1], most)
        tally_P2[place, 1] -= out_N[i]
        if out_N[i] and not tally_P2[place, 1]:
            _vacate(tally_P2, place, secret)
            gone += 1
    return gone
