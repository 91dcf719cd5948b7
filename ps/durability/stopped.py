"""What a shard with a log leaves when it is stopped in order, so that the next start need not carry out its log.

    PATH/shard-K/stopped/<name>/shard-K/part.json, state, rows-NNNN, disk/...    a part as checkpoints have it

RocksDB's files are hard-linked where log and disk are on one file system. It has a version like any checkpoint, and is
good as long as the log goes on behind that: a crash after the next start may use it again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import NamedTuple

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.listing import names_of
from ps.durability.checkpoint.manifest import read_part
from ps.durability.checkpoint.stores.store import store_of
from ps.durability.log.folder import Folder
from ps.durability.log.log import outlive
from ps.durability.state import checkpoint
from ps.errors import CheckpointCorrupt, DiskError, NotFound, PsError
from ps.shard import Shard

log = logging.getLogger(__name__)

FOLDER = "stopped"


class Found(NamedTuple):
    """A part that is there."""

    name: str
    version: int


class Stopped:
    """The parts that clean stops of one shard have left. Whoever has the folder's lock may use it."""

    def __init__(self, folder: Folder) -> None:
        self._shard = folder.shard
        path = str(folder.path / FOLDER)
        self.where = path
        self.checkpoints = Checkpoints(path, folder.files)
        self._store = store_of(path, folder.files)

    def newest(self) -> Found | None:
        """Returns the newest that was written to its end. What cannot be read is left out, and the log says so."""
        for name in reversed(self._names()):
            try:
                return Found(name, read_part(self._store, name, self._shard).version)
            except (CheckpointCorrupt, DiskError, NotFound) as error:
                log.warning("%s: the part of a clean stop is left out: %s", self.where, error)
        return None

    def write(self, shard: Shard) -> int:
        """Writes the whole shard, and removes what stops before have left; returns the version. Raises as
        `ps.durability.state.checkpoint`."""
        before = self._names()
        writer = self.checkpoints.part(name := self.checkpoints.new_name(), self._shard)
        try:
            version = checkpoint(shard, writer)
            outlive(shard.commit.log, version)
            writer.finish()
        except BaseException:
            with suppress(PsError):
                writer.abort()
                self.checkpoints.remove(name)
            raise
        self._remove(before)
        return version

    def _names(self) -> list[str]:
        with suppress(NotFound, DiskError):
            return names_of(self._store)
        return []

    def _remove(self, names: list[str]) -> None:
        for name in names:
            with suppress(PsError):  # tried again at the next stop
                self.checkpoints.remove(name)
