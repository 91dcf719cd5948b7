"""Eviction: how many of the least important rows go when there is no room for all. Pure.

Decided at the end of a write, from numbers of rows and logged scores: never from what happens to be in RAM, or from the
time of day.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ps.kernels.hashing import hash_ids

LOW_WATERMARK = 0.9
"""Rows go down to this share of the room, so that they do not go a few at every push."""
SPREAD = 0.125
"""Rows alike are told apart by that much: less than what ranks are exact to."""


DISK_SHARE = 0.8
"""Of the disk's room that rows may take. The rest is for what RocksDB keeps until it compacts: rows in older forms."""


def rows_allowed(rows: Sequence[int], row_bytes: Sequence[int], room_bytes: int) -> list[int]:
    """How many rows each of the tables may have, from how many it has: all of them if they fit together, or else each
    table gives up the same share."""
    total = sum(n * size for n, size in zip(rows, row_bytes, strict=True))
    return list(rows) if total <= room_bytes else [n * room_bytes // total for n in rows]


def rows_kept(total: int, most: int) -> int:
    """How many of the rows stay."""
    return total if total <= most else int(most * LOW_WATERMARK)


def spread(ids_N: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """float32 [n] in [1, 1 + SPREAD), a function of the id: what a use of the row counts. Otherwise rows that were used
    once, at the same time, would all go or all stay."""
    hashes_N = np.empty(len(ids_N), np.uint64)
    hash_ids(ids_N, hashes_N)
    return (1 + (hashes_N >> np.uint64(40)).astype(np.float32) * np.float32(SPREAD * 2.0**-24)).astype(np.float32)
