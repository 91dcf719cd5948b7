"""How a shard comes back: from the part of a clean stop or a checkpoint, then its log; and logs behind that.

log.path/shard-K/    segments, `service.json` (`origin`), `stopped/` (`stopped`)
begin                the newest whole state that the log goes on behind (`starts`); without one, nothing
replay               each later write of the log is carried out
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ps.config import LogConfig, ServiceConfig
from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.log.folder import Folder
from ps.durability.log.log import Mode, WriteLog
from ps.durability.log.reader import Reader, Record
from ps.durability.origin import Origin, OriginFile
from ps.durability.starts import Start, begin, foreign
from ps.durability.stopped import Stopped
from ps.errors import CorruptWrite, LogCorrupt, PsError, ResourceExhausted
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.files import Files, RealFiles
from ps.shard import Shard
from ps.shard.writes.grammar import Wire
from ps.shard.writes.registry import decode

log = logging.getLogger(__name__)

PROGRESS_S = 5.0
ROOM_S = 120.0
"""Seconds for which a write waits for rows to go to disk: a disk that refuses them is tried again once a minute."""


@dataclass(frozen=True)
class Recovered:
    """How a shard with a log came back."""

    folder: Folder
    origin: OriginFile
    start: Start | None
    """What it began from; None: its log alone, or nothing."""
    version: int
    """The version that the shard has now; 0: it is new."""

    @property
    def lost(self) -> bool:
        """Whether the folder of the log has nothing of a log, not even the epoch of a service that has served."""
        return not self.origin.origin.epoch and self.start is None and not self.version

    def leave(self, shard: Shard) -> int:
        """Writes what the next start begins from, when the shard takes no more writes; returns its version. Raises as
        `ps.durability.state.checkpoint`, and LogFailed."""
        return Stopped(self.folder).write(shard)


def take_up(
    shard: Shard,
    config: LogConfig,
    wire: Wire,
    files: Files | None = None,
    clock: Clock = SYSTEM_CLOCK,
    origin: Origin | None = None,
    checkpoints: Checkpoints | None = None,
) -> Recovered | None:
    """Has a shard that was just made, or restored, come back to where its log ends, and log there from then on; returns
    how. Nothing is done where the mode is `off`. Raises ConfigError for a log of another number of shards, LogCorrupt,
    DiskError, and what a write raises that cannot be carried out.

    `wire`: the decoders of what came compressed. `clock`: for the lines of progress, waits until there is room, and the
    log's interval. `origin`: the service that the shard is of; by default it is one of its own. `checkpoints`: those of
    the service.
    """
    if config.mode == "off" or config.path is None:
        return None
    path = Path(config.path).expanduser().absolute()  # of this host, whoever wrote the configuration
    folder = Folder(files or RealFiles(), path, shard.shard_id)
    try:
        of = OriginFile(folder, origin or Origin(1))
        start = None if shard.version else begin(shard, folder, of.origin, checkpoints)
        reader = Reader(folder, shard.version)
        _replay(shard, reader, wire, clock)
        of.leave_out(foreign(shard, start, of.origin, checkpoints))
        history = log_behind(reader, config, clock)
        shard.engine.run(lambda: setattr(shard.commit, "log", history))
    except BaseException:
        folder.close()
        raise
    return Recovered(folder, of, start, shard.version)


def log_behind(reader: Reader, config: LogConfig, clock: Clock) -> WriteLog:
    """Returns a log that goes on where a reader has ended. Raises DiskError."""
    sizes = (config.segment_bytes, config.max_bytes)
    return WriteLog(reader.folder, reader.end, Mode(config.mode), config.interval_s, *sizes, clock=clock)


def come_back(
    shard: Shard,
    config: ServiceConfig,
    wire: Wire,
    origin: Origin,
    files: Files | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Recovered | None:
    """Has a new shard of a service come back: `take_up` with the checkpoints of its configuration."""
    at = config.checkpoint.path
    checkpoints = None if at is None or config.log.mode == "off" else Checkpoints(at, files, clock, origin.service)
    return take_up(shard, config.log, wire, files, clock, origin, checkpoints)


def _replay(shard: Shard, reader: Reader, wire: Wire, clock: Clock) -> None:
    where, started = reader.folder.path, clock.monotonic()
    said = started
    for record in reader:
        carry_out(shard, record, wire, where, clock)
        if clock.monotonic() - said >= PROGRESS_S:
            said = clock.monotonic()
            log.info("%s: %d writes carried out in %.0f s", where, record.version, said - started)
    end = reader.end
    if end.cut_bytes:
        log.warning("%s: %d bytes of a write that a crash had interrupted are cut off", where, end.cut_bytes)
    if end.version:
        log.info("%s: the shard is at version %d, after %.1f s", where, end.version, clock.monotonic() - started)


def carry_out(shard: Shard, record: Record, wire: Wire, where: Path, clock: Clock) -> None:
    """Carries out one write of a log, of the folder `where`, that comes right behind the version of the shard. Raises
    LogCorrupt, and what a write raises that cannot be carried out."""
    try:
        _retried(shard, record, wire, clock)
    except CorruptWrite as error:
        raise LogCorrupt(f"{where}: version {record.version:,} cannot be read: {error}") from error
    except PsError:
        log.critical("%s: version %d cannot be carried out", where, record.version)
        raise
    if shard.version != record.version:
        raise LogCorrupt(
            f"{where}: the write of version {record.version:,} made version {shard.version:,}: it had been carried out "
            "before"
        )


def _retried(shard: Shard, record: Record, wire: Wire, clock: Clock) -> None:
    """Carries out a write. Where RAM is full it waits until rows have gone to disk, as its client had to."""
    ends_at = clock.monotonic() + ROOM_S
    while True:
        try:
            shard.replay(decode(record.payload, wire))
            return
        except ResourceExhausted as error:
            if error.retry_after_s is None or clock.monotonic() >= ends_at:
                raise
            clock.sleep(error.retry_after_s)
