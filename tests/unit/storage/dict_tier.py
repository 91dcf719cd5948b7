"""A dict in place of RocksDB: `ps.storage.tier.LowerTier` in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ps.arrays import Ids
from ps.errors import DiskError
from ps.kernels.index.hashing import partitions
from ps.storage.tier import Records, Traffic, by_length

Row = tuple[bytes, float, int]


class DictTier:
    """Rows by id in a dict."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.traffic = Traffic()
        self.failing = False
        """Whether writes fail."""

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, ids_N: Ids, check: Callable[[], None] = lambda: None) -> list[Records]:
        check()
        found = self._records([id_ for id_ in ids_N.tolist() if id_ in self.rows])
        self.traffic.rows_read += sum(map(len, found))
        return found

    def write(self, records: Records, held: int | None = None) -> None:
        self._may_fail()
        assert held is None or held == self.count_held(records.ids_N), "the store counts rows wrongly"
        for id_, row, score, stamp in zip(
            records.ids_N.tolist(), records.rows_NB, records.scores_N, records.stamps_N, strict=True
        ):
            self.rows[id_] = row.tobytes(), score, int(stamp)
        self.traffic.rows_written += len(records)

    def discard(self, ids_N: Ids, held: int | None = None) -> None:
        self._may_fail()
        assert held is None or held == self.count_held(ids_N), "the store counts rows wrongly"
        for id_ in ids_N.tolist():
            self.rows.pop(id_, None)

    def partitions(self, first: int, end: int) -> list[Records]:
        ids_N = np.array(list(self.rows), np.int64)
        parts_N = np.empty(len(ids_N), np.int32)
        partitions(ids_N, parts_N)
        return self._records(ids_N[(parts_N >= first) & (parts_N < end)].tolist())

    def count_held(self, ids_N: Ids) -> int:
        return sum(id_ in self.rows for id_ in ids_N.tolist())

    def memory_usage(self) -> dict[str, int]:
        return {"dict": sum(len(row) for row, _, _ in self.rows.values())}

    def close(self) -> None:
        self.rows.clear()

    def _may_fail(self) -> None:
        if self.failing:
            raise DiskError("injected")

    def _records(self, ids: Sequence[int]) -> list[Records]:
        rows = [self.rows[id_] for id_ in ids]
        return by_length(
            Records(
                np.array([id_], np.int64),
                np.frombuffer(row, np.uint8).reshape(1, -1).copy(),
                np.array([score], np.float32),
                np.array([stamp], np.uint32),
            )
            for id_, (row, score, stamp) in zip(ids, rows, strict=True)
        )


class DictDisk:
    """Stands for `ps.storage.disk.database.Disk` where a table asks for its part of it."""

    def __init__(self) -> None:
        self.tier = DictTier()

    def table(self, name: str, lengths: Sequence[int]) -> DictTier:
        return self.tier
