"""What the tests of the disk share: random rows, rows as a dict, small disks, ways to spoil them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

from ps.storage.disk.database import Disk
from ps.storage.tier import Records

ROW = 100


def small_disk(path: Path, **settings):
    return closing(Disk(path, cache_bytes=1 << 20, threads=2, write_buffer_bytes=1 << 20, **settings))


def records(ids, seed=0, width=ROW) -> Records:
    ids_N = np.asarray(ids, np.int64)
    rng = np.random.default_rng(seed)
    n = len(ids_N)
    rows_NB = rng.integers(0, 256, (n, width), dtype=np.uint8)
    return Records(ids_N, rows_NB, rng.random(n, dtype=np.float32), rng.integers(0, 2**32, n, dtype=np.uint32))


def as_dict(batches) -> dict[int, tuple[bytes, float, int]]:
    return {
        int(some.ids_N[i]): (some.rows_NB[i].tobytes(), float(some.scores_N[i]), int(some.stamps_N[i]))
        for some in batches
        for i in range(len(some))
    }


def spoil_a_block(folder: Path) -> None:
    """Four bytes in the middle of the largest file with rows."""
    largest = max((folder / "rocksdb").glob("*.sst"), key=lambda file: file.stat().st_size)
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        before = file.read(4)
        file.seek(-4, 1)
        file.write(bytes(255 - byte for byte in before))
