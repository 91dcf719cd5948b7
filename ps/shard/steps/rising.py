"""Rows on their way up from disk for a step or a write: held where they are in RAM, read where they are not.

`begin`, `finish` and `let_go` are for the engine thread; `read`, which waits for the disk, is for any other.
"""

from __future__ import annotations

from collections.abc import Sequence

from ps.shard.caller import PATIENT, Caller
from ps.shard.steps.steps import Resolved
from ps.storage.residence.fetch import Fetch
from ps.table.table import Table


class Rising:
    """Tables of one request."""

    def __init__(self, tables: Sequence[Resolved], caller: Caller = PATIENT) -> None:
        """`caller`: for whom; when it has gone nothing more is read."""
        self.tables = list(tables)
        self._caller = caller
        self._held = 0
        self._layout_epochs: list[int] = []
        self._fetches: list[tuple[Resolved, Fetch]] = []

    @property
    def waits(self) -> bool:
        """Whether anything must be read."""
        return bool(self._fetches)

    @property
    def holds(self) -> bool:
        """Whether any row is held."""
        return self._held > 0

    def begin(self) -> None:
        """Holds what is in RAM, and begins to read what may be on disk."""
        try:
            self._layout_epochs = [resolved.table.ram.layout_epoch for resolved in self.tables]
            for position, resolved in enumerate(self.tables):
                resolved.hold()
                self._held = position + 1
                fetch = resolved.fetch()
                if fetch is not None:
                    self._fetches.append((resolved, fetch))
        except BaseException:
            self.abandon()
            raise

    def read(self) -> None:
        """Reads the disk; raises CorruptRow, DiskError, and Unavailable when the caller has gone."""
        for _, fetch in self._fetches:
            fetch.read(self._caller.check)

    def finish(self) -> list[tuple[Table, int]]:
        """Puts what was read into RAM, where it is held with the rest; how many rows of which table. An error lets all
        go."""
        try:
            self._check_open()
            raised = [(resolved.table, resolved.table.store.install(fetch)) for resolved, fetch in self._fetches]
            for resolved in self.tables:
                resolved.slots()
        except BaseException:
            self.abandon()
            raise
        self._end()
        return raised

    def beside(self) -> list[tuple[Table, int]]:
        """For a pull, instead of `finish`: what was read is given to it and stays below; how many rows of which table.

        Rows that were dropped or removed meanwhile have ended all pins, and rows that were in RAM may have gone down:
        then all is read again.
        """
        read = []
        try:
            self._check_open()
            if self._fetches and self._layout_epochs != [resolved.table.ram.layout_epoch for resolved in self.tables]:
                self.abandon()
                self.begin()
                self.read()
            for resolved in self.tables:
                resolved.beside = None
                resolved.slots()  # rows may have come up since
            for resolved, fetch in self._fetches:
                found = resolved.table.store.found(fetch)
                resolved.read_beside(found)
                read.append((resolved.table, sum(map(len, found))))
        finally:
            self._end()
        return read

    def abandon(self) -> None:
        """Nothing more comes up, and nothing is held. May be called again."""
        self._end()
        self.let_go()

    def let_go(self) -> None:
        """The rows may move again. May be called again."""
        held, self._held = self._held, 0
        for resolved in self.tables[:held]:
            resolved.let_go()

    def _check_open(self) -> None:
        for resolved in self.tables:
            resolved.table.check_open()

    def _end(self) -> None:
        for resolved, fetch in self._fetches:
            resolved.table.store.end(fetch)
        self._fetches = []
