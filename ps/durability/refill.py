"""The log of a shard that is restored while it runs: its own ends before, and begins again behind the restored version;
in between another log, of the service that was saved, can be carried out up to a version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ps.config import LogConfig
from ps.durability.log.folder import Folder, translated
from ps.durability.log.reader import Reader
from ps.durability.recovery import carry_out, log_behind
from ps.errors import InvalidArgument, LogCorrupt, NotFound
from ps.runtime.clock import Clock
from ps.runtime.files import Files, RealFiles
from ps.shard import Shard
from ps.shard.writes.grammar import Wire
from ps.shard.writes.log import Log, NoLog

SAID_EVERY = 1000
"""Writes between two words of how far it is."""


def end_log(shard: Shard) -> Log:
    """Has a shard log nothing from now on; returns the log that it had, which is closed."""
    had = shard.commit.log
    shard.engine.run(lambda: setattr(shard.commit, "log", NoLog()))
    had.close()
    return had


def begin_log(shard: Shard, had: Log, config: LogConfig, files: Files | None, clock: Clock) -> None:
    """Has a shard log behind its version again, in the folder of the log that it had, whose writes it has not, or has
    all. Does nothing where the mode is `off`. Raises LogCorrupt and DiskError."""
    if config.mode == "off" or config.path is None:
        return
    folder = Folder(files or RealFiles(), Path(config.path).expanduser().absolute(), shard.shard_id)
    try:
        reader = Reader(folder, shard.version)
        if any(True for _ in reader):
            raise LogCorrupt(f"{folder.path}: the log has writes behind version {shard.version:,}, which was restored")
        history = log_behind(reader, config, clock)
    except BaseException:
        folder.close()
        raise
    history.when_failed = had.when_failed
    shard.engine.run(lambda: setattr(shard.commit, "log", history))


class OldLog:
    """The log of one shard of a service that has ended, to be carried out up to a version, or to its end. It stays as
    it is. Used with `with`: meanwhile no other process has it."""

    def __init__(self, path: Path, shard: int, at: int | None, files: Files | None, clock: Clock) -> None:
        """path: of the logs of all its shards. at: the last version to carry out. Raises NotFound where there is no log
        of this shard, and DiskError."""
        files = files or RealFiles()
        with translated(path / f"shard-{shard}"):
            try:
                files.names(path / f"shard-{shard}")
            except FileNotFoundError:
                raise NotFound(
                    f"there is no folder {path}/shard-{shard}: give as log the folder that the service had as log.path"
                ) from None
        self._folder = Folder(files, path, shard)
        self._at, self._clock = at, clock

    def __enter__(self) -> OldLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.close()

    def check(self, after: int) -> None:
        """Raises InvalidArgument where it does not lead from version `after` to the version that is wanted, LogCorrupt,
        and DiskError. It reads all of that."""
        if self._at is None:
            return
        if self._at < after:
            raise InvalidArgument(
                f"version {self._at:,} is wanted, and the checkpoint has version {after:,}: choose an older one"
            )
        last = after
        for record in Reader(self._folder, after):
            last = record.version
            if last >= self._at:
                return
        if last < self._at:
            raise InvalidArgument(
                f"version {self._at:,} is wanted, and the log in {self._folder.path} ends with version {last:,}"
            )

    def carry_out(self, shard: Shard, wire: Wire, told: Callable[[int], object]) -> None:
        """Carries out what it has behind the version of the shard, which logs nothing. `told` is called now and then
        with the version. Raises LogCorrupt, DiskError, and what a write raises that cannot be carried out."""
        for record in Reader(self._folder, shard.version):
            if self._at is not None and record.version > self._at:
                return
            carry_out(shard, record, wire, self._folder.path, self._clock)
            if not record.version % SAID_EVERY:
                told(record.version)
