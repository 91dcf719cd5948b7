"""What the folder of a shard's log says of the service that it is of.

    PATH/shard-K/service.json    {"shards": N, "service": NAME, "epoch": E, "foreign": [NAME, ...]}, one line; written
                                 beside it and renamed

A log has the ids of a shard among N: with another number of shards an id belongs to another one. The epoch is that of
the routing table by which clients send requests: they go on with it when the shard comes back. Foreign is a checkpoint
that the shard went on without: it has writes that the log has not, and what the log has from then on does not belong
behind it, though versions may fit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ps.durability.log.folder import Folder, translated
from ps.errors import ConfigError, LogCorrupt

NAME = "service.json"


@dataclass(frozen=True)
class Origin:
    """The service that a shard is of."""

    shards: int
    """The number of shards."""
    service: str = "default"
    """The name of the service, which its checkpoints have too."""
    epoch: int = 0
    """The epoch of its routing table; 0: none was told yet."""
    foreign: tuple[str, ...] = ()
    """Names of checkpoints, or parts of clean stops, of another history than the log's, ascending."""


class OriginFile:
    """The origin as the folder of a log has it. Whoever has the folder's lock may use it. All raise DiskError."""

    def __init__(self, folder: Folder, origin: Origin) -> None:
        """origin: of the shard that starts. Raises ConfigError where the log is of another number of shards, and
        LogCorrupt where the file cannot be read."""
        self._folder, self.origin = folder, origin
        self.found = self._read()
        """What was there; None: nothing, so the log is new, or was lost."""
        if self.found is None:
            return
        if self.found.shards != origin.shards:
            raise ConfigError(
                f"the log in {folder.path} is of a service of {self.found.shards} shards, and this one has "
                f"{origin.shards}: start it with {self.found.shards}; or make a checkpoint of that service (psctl "
                "checkpoint create), start this one with an empty log.path, and psctl restore it"
            )
        self.origin = replace(origin, epoch=self.found.epoch, foreign=self.found.foreign)

    def keep(self, epoch: int) -> None:
        """Notes the epoch of the routing table, durably; nothing is written where it is known."""
        if self.found is None or self.origin.epoch != epoch:
            self._keep(replace(self.origin, epoch=epoch))

    def leave_out(self, names: Sequence[str]) -> None:
        """Notes, durably, which are of another history; nothing is written where that is known."""
        foreign = tuple(sorted(names))
        if foreign != self.origin.foreign:
            self._keep(replace(self.origin, foreign=foreign))

    def _keep(self, origin: Origin) -> None:
        self.origin = origin
        self._write()
        self.found = origin

    def _read(self) -> Origin | None:
        path, files = self._folder.path / NAME, self._folder.files
        with translated(path):
            if NAME not in files.names(self._folder.path):
                return None
            data = files.read(path, 0, files.size(path))
        try:
            found = Origin(**json.loads(data))
            return replace(found, foreign=tuple(found.foreign))
        except (ValueError, TypeError) as error:
            raise LogCorrupt(f"{path}, byte 0: {error}. Bring it back from a copy, or from another shard") from error

    def _write(self) -> None:
        path, files = self._folder.path / NAME, self._folder.files
        beside = path.with_suffix(".new")
        with translated(path):
            if beside.name in files.names(self._folder.path):
                files.remove(beside)
            file = files.create(beside)
            try:
                file.write([json.dumps(asdict(self.origin)).encode() + b"\n"])
                file.sync()
            finally:
                file.close()
            files.rename(beside, path)
            files.sync_folder(self._folder.path)
