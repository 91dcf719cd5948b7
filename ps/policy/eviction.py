"""Eviction: how many of the least important rows go when there is no room for all. Pure.

Decided at the end of a write, from numbers of rows and logged scores: never from what happens to be in RAM, or from the
time of day.

More rows may have the rank at the border than are to go. They are parted by lot (`ps.kernels.ranking.score`), in an
order that is drawn for each eviction: no row is better off for its id. Lots that have gathered far more rows than
others go first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.kernels.index.hashing import hash_ids

LOW_WATERMARK = 0.95
"""Rows go down to this share of the room, so that they do not go a few at every push."""
LEAST = 0.85
"""No eviction leaves less than this share of the room."""

LUCKY_LOTS = 2
"""How many lots are lucky: rows created in them begin with twice what a use counts. So where more ids recur than there
is room for, and all would be gone before they come again, some stay that long, other ones each time."""
FULL_LOT = 3
"""Times the mean that makes a lot go first."""

DISK_SHARE = 0.8
"""The share of the disk's room that rows may take. The rest is for what RocksDB keeps until it compacts: rows in older
forms."""

RAM_SHARE = 0.85
"""The share of the room in RAM that rows may take without a disk. The rest is for the rows that a push creates before
others go."""

FULL_SHARE = 0.97
"""The share of the room in RAM that a push may fill: rows are dropped before one that would take more."""


class Bounds(NamedTuple):
    """How many rows are to be left."""

    least: int
    keep: int
    """About so many."""
    most: int


def rows_allowed(rows: Sequence[int], row_bytes: Sequence[int], room_bytes: int) -> list[int]:
    """How many rows each of the tables may have, from how many it has: all of them if they fit together, or else each
    table gives up the same share, and none its last row."""
    total, room_bytes = sum(n * size for n, size in zip(rows, row_bytes, strict=True)), max(room_bytes, 1)
    return list(rows) if total <= room_bytes else [-(-n * room_bytes // total) for n in rows]


def rows_kept(most: int) -> int:
    """How many rows stay, of more than `most`."""
    return max(int(most * LOW_WATERMARK), rows_least(most))


def rows_least(most: int) -> int:
    """How many rows stay at least."""
    return ceil(most * LEAST)


def lots_dropped(rows_L: npt.NDArray[np.integer], above: int, bounds: Bounds, turn: int) -> npt.NDArray[np.bool_]:
    """Which lots of the border rank go, of so many rows each, with so many rows above them. `turn`: a number that is
    another one for each eviction.

    About `keep` rows are left. If that would be more than `most`, as many lots go as leave `least`.
    """
    left = above + int(rows_L.sum())
    dropped_L = np.zeros(len(rows_L), np.bool_)
    drawn_L = np.empty(len(rows_L), np.uint64)
    hash_ids(np.arange(len(rows_L)) + len(rows_L) * turn, drawn_L)
    order = np.lexsort((drawn_L, rows_L <= FULL_LOT * rows_L.mean())).tolist()
    for leave, unless in ((bounds.keep, bounds.keep), (bounds.least, bounds.most)):
        for lot in order:
            if left > unless and not dropped_L[lot] and left - rows_L[lot] >= leave:
                left -= int(rows_L[lot])
                dropped_L[lot] = True
    return dropped_L
