"""Sinks and sources of a shard's part that say how far they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ps.config import TableConfig
from ps.durability.state import Sink, Source
from ps.kept import KeptState
from ps.kernels.ranking.score import Marks
from ps.progress import Told
from ps.shard import Shard
from ps.storage.tier import Records

ROWS, DISK = "rows", "files of the disk"
_ROW_BYTES = 18
"""Bytes of a row's id, score, stamp and marks."""


class WatchedSink:
    """A sink that says how many bytes it has taken, from the cut on."""

    def __init__(self, sink: Sink, shard: Shard, told: Told, whole: bool) -> None:
        """whole: it is given all rows, so how many bytes there will be is known."""
        self._sink, self._told = sink, told
        self._done, self._all = 0, _bytes_of(shard) if whole else 0

    def take_state(self, version: int, state: KeptState) -> None:
        """See `Sink`."""
        self._told(ROWS, 0, self._all)
        self._sink.take_state(version, state)

    def take_rows(self, table: str, records: Records, marks_N: Marks) -> None:
        """See `Sink`."""
        self._sink.take_rows(table, records, marks_N)
        self._done += _nbytes_of(records)
        self._told(ROWS, self._done, self._all)

    def take_disk(self, folder: Path) -> None:
        """See `Sink`."""
        self._told(DISK, self._done, self._all)
        self._sink.take_disk(folder)
        self._told(DISK, max(self._done, self._all), self._all)


class WatchedSource:
    """A source that says how many bytes it has given."""

    def __init__(self, source: Source, nbytes: int, told: Told) -> None:
        """nbytes: all that it has."""
        self._source, self._all, self._told = source, nbytes, told
        self._done = 0

    def state(self) -> KeptState:
        """See `Source`."""
        self._told(ROWS, 0, self._all)
        return self._source.state()

    def put_disk(self, folder: Path) -> bool:
        """See `Source`."""
        self._told(DISK, self._done, self._all)
        return self._source.put_disk(folder)

    def rows(self, table: str) -> Iterator[tuple[Records, Marks]]:
        """See `Source`."""
        for records, marks_N in self._source.rows(table):
            self._done += _nbytes_of(records)
            self._told(ROWS, min(self._done, self._all), self._all)
            yield records, marks_N


def _nbytes_of(records: Records) -> int:
    """Returns the bytes of rows with what belongs to them."""
    return records.rows_NB.nbytes + len(records) * _ROW_BYTES


def row_bytes(config: TableConfig) -> int:
    """Returns the bytes of a row, in full precision, with what belongs to it."""
    return 4 * (config.dim + config.optimizer.state_width(config.dim)) + _ROW_BYTES


def _bytes_of(shard: Shard) -> int:
    """Returns about how many bytes all rows of a shard take in a checkpoint."""
    stats: dict[str, Any] = dict(shard.stats())
    in_ram = 0
    for table in stats["tables"].values():
        n = sum(rows for tier, rows in table["rows"].items() if tier != "disk")
        in_ram += n * (table["row_bytes"] + _ROW_BYTES)
    return in_ram + (stats["disk_bytes"] or 0)
