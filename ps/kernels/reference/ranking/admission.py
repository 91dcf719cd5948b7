"""`ps.kernels.ranking.admission`, in numpy. Integers: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Ids
from ps.kernels.ranking.admission import Cells
from ps.kernels.reference.index.hashing import mix64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _places(cells_BRC: Cells, ids_N: Ids) -> tuple[Ids, Ids, Ids]:
    """Returns each id's block [n, 1], row [1, 4] and cell [n, 4]."""
    blocks, rows, cells = (np.uint64(size) for size in cells_BRC.shape)
    hashed_N = mix64(ids_N.view(np.uint64))
    block_N1 = mix64(hashed_N + _GOLDEN)[:, None] & (blocks - np.uint64(1))
    rows_R = np.arange(2, int(rows) + 2, dtype=np.uint64)
    cell_NR = mix64(hashed_N[:, None] + rows_R * _GOLDEN) & (cells - np.uint64(1))
    return block_N1.astype(np.int64), np.arange(int(rows))[None, :], cell_NR.astype(np.int64)


def estimate(cells_BRC: Cells, ids_N: Ids, out_N: Counts) -> None:
    """out[i] = how often ids[i] has been added, or more."""
    out_N[:] = cells_BRC[_places(cells_BRC, ids_N)].min(axis=1)


def add(cells_BRC: Cells, ids_N: Ids, counts_N: Counts) -> None:
    """Adds counts[i] to ids[i], one after the other."""
    for i in range(len(ids_N)):
        where = _places(cells_BRC, ids_N[i : i + 1])
        count = min(int(cells_BRC[where].min()) + int(counts_N[i]), 0xFFFF)
        cells_BRC[where] = np.maximum(cells_BRC[where], count)


def draw(key: np.uint64, ids_N: Ids, out_N: npt.NDArray[np.uint64]) -> None:
    """out[i] = 64 bits of key and ids[i], as good as random."""
    out_N[:] = mix64(key ^ mix64(ids_N.view(np.uint64) + _GOLDEN))
