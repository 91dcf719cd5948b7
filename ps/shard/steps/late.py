"""Rows that are read from disk while somebody waits: their prepare was lost, came late, or was never sent."""

from __future__ import annotations

from collections.abc import Sequence

from ps.shard.steps.rising import Rising
from ps.shard.steps.steps import Resolved
from ps.shard.upkeep.disk_health import DiskHealth
from ps.table.table import Table


class Late:
    """Reads and counts the late rows of one shard. Called by the engine thread only."""

    def __init__(self, disk_health: DiskHealth) -> None:
        self._disk_health = disk_health
        self.rows = 0
        """How many rows were late."""

    def read(self, tables: Sequence[Resolved]) -> None:
        """Reads what is on disk still, while the engine waits: rows whose prepare was lost, or that have gone down
        since. Rarely any."""
        rising = Rising(tables)
        rising.begin()
        try:
            if rising.waits:
                with self._disk_health.reading():
                    rising.read()
                    self.count(rising.finish())
        finally:
            rising.abandon()

    def count(self, read: Sequence[tuple[Table, int]]) -> None:
        """Counts rows that have just been read, by table."""
        for table, rows in read:
            table.counts.rows_late += rows
            self.rows += rows
