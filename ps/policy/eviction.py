"""Eviction: decides how many of the least important rows are dropped when there is no room for all. Pure.

It is decided at the end of a write, from numbers of rows and logged scores, never from which rows happen to be in RAM,
or from the time of day.

The rank at the border may have more rows than are to be dropped. Then their lots (`ps.kernels.ranking.score`) decide,
in an order that is drawn for each eviction, so that no id is favoured for good. Lots with far more rows than others go
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.kernels.index.hashing import hash_ids

LOW_WATERMARK = 0.95
"""An eviction leaves this share of the room, so that rows are not evicted a few at every push."""
LEAST = 0.85
"""An eviction never leaves less than this share of the room."""

LUCKY_LOTS = 2
"""How many lots are lucky: a row created in one begins with twice the score of a use. Where more ids recur than there
is room for, all rows might be gone before they come again; so some stay that long, other ones each time."""
FULL_LOT = 3
"""A lot with more rows than so many times the mean goes first."""

DISK_SHARE = 0.8
"""The share of the disk's room that rows may take. The rest is for old forms of rows, which RocksDB keeps until it
compacts."""

RAM_SHARE = 0.85
"""The share of the room in RAM that rows may take without a disk. The rest is for rows that a push creates before
others are evicted."""

FULL_SHARE = 0.97
"""The share of the room in RAM that a push may fill: before a push that would take more, rows are dropped."""


class Bounds(NamedTuple):
    """How many rows an eviction leaves."""

    least: int
    keep: int
    """About how many rows are left."""
    most: int


def rows_allowed(rows: Sequence[int], row_bytes: Sequence[int], room_bytes: int) -> list[int]:
    """Returns how many rows each table may have, given how many it has: all of them if they fit together; otherwise
    each table gives up the same share, and none its last row."""
    total, room_bytes = sum(n * size for n, size in zip(rows, row_bytes, strict=True)), max(room_bytes, 1)
    return list(rows) if total <= room_bytes else [-(-n * room_bytes // total) for n in rows]


def rows_kept(most: int) -> int:
    """Returns about how many rows stay when there are more than `most`."""
    return max(int(most * LOW_WATERMARK), rows_least(most))


def rows_least(most: int) -> int:
    """Returns how many rows stay at least."""
    return ceil(most * LEAST)


def lots_dropped(rows_L: npt.NDArray[np.integer], above: int, bounds: Bounds, turn: int) -> npt.NDArray[np.bool_]:
    """Returns which lots of the border rank are dropped, given the rows of each lot and the rows above the border rank.
    turn: a number that is different for each eviction.

    About `keep` rows are left. If that would be more than `most`, so many lots are dropped that `least` are left.
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
