"""Counting ids that have no row, and drawing lots for them.

A count-min sketch (Cormode and Muthukrishnan 2005) with conservative update (Estan and Varghese 2002): an id has a cell
in each of four rows, its count is the least of the four, and what is added raises only cells that are below the new
count. So a count is never too low, and too high only where all four cells are shared. The sketch is cut into blocks and
an id's cells are all in one: halving a block halves all that is known of its ids at once, and of no others.

cells_BRC uint16 [blocks, 4, cells of a row], the first and the last a power of two. Counts stop at 65,535.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Ids
from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel

Cells = npt.NDArray[np.uint16]

ROWS = 4
MAX_COUNT = 0xFFFF
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@helper()
def _hash(id_: np.int64, row: int) -> np.uint64:
    """Returns the hash of the id's block (row 0) or of its cell in a row (1 and up). It is not the one of the
    partition, whose top bits a shard's ids share."""
    hashed: np.uint64 = mix64(mix64(np.uint64(id_)) + np.uint64(row + 1) * _GOLDEN)
    return hashed


@kernel()
def estimate(cells_BRC: Cells, ids_N: Ids, out_N: Counts) -> None:
    """out[i] = how often ids[i] has been added, or more."""
    last_block, last_cell = np.uint64(cells_BRC.shape[0] - 1), np.uint64(cells_BRC.shape[2] - 1)
    for i in range(len(ids_N)):
        block = np.int64(_hash(ids_N[i], 0) & last_block)
        least = np.int64(MAX_COUNT)
        for row in range(ROWS):
            least = min(least, np.int64(cells_BRC[block, row, np.int64(_hash(ids_N[i], row + 1) & last_cell)]))
        out_N[i] = np.uint32(least)


@kernel()
def add(cells_BRC: Cells, ids_N: Ids, counts_N: Counts) -> None:
    """Adds counts[i] to ids[i], one after the other."""
    last_block, last_cell = np.uint64(cells_BRC.shape[0] - 1), np.uint64(cells_BRC.shape[2] - 1)
    places_R = np.empty(ROWS, np.int64)
    for i in range(len(ids_N)):
        block = np.int64(_hash(ids_N[i], 0) & last_block)
        least = np.int64(MAX_COUNT)
        for row in range(ROWS):
            places_R[row] = np.int64(_hash(ids_N[i], row + 1) & last_cell)
            least = min(least, np.int64(cells_BRC[block, row, places_R[row]]))
        count = min(least + np.int64(counts_N[i]), np.int64(MAX_COUNT))
        for row in range(ROWS):
            held = np.int64(cells_BRC[block, row, places_R[row]])
            cells_BRC[block, row, places_R[row]] = np.uint16(max(held, count))


@kernel()
def draw(key: np.uint64, ids_N: Ids, out_N: npt.NDArray[np.uint64]) -> None:
    """out[i] = 64 bits of key and ids[i], as good as random."""
    for i in range(len(ids_N)):
        out_N[i] = mix64(key ^ mix64(np.uint64(ids_N[i]) + _GOLDEN))
