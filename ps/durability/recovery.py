"""How a shard takes up its log: it carries out what the log has, then logs behind it."""

from __future__ import annotations

import logging
from pathlib import Path

from ps.config import LogConfig
from ps.durability.log.folder import Folder
from ps.durability.log.log import Mode, WriteLog
from ps.durability.log.reader import Reader, Record
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


def take_up(
    shard: Shard,
    config: LogConfig,
    wire: Wire,
    files: Files | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Has a shard that was just made, or restored, carry out the writes that its log has behind its version, and log
    there from then on. Nothing is done where the mode is `off`. Raises LogCorrupt, DiskError, and what a write raises
    that cannot be carried out.

    `wire`: the decoders of what came compressed. `clock`: for the lines of progress, waits until there is room, and the
    log's interval.
    """
    if config.mode == "off" or config.path is None:
        return
    path = Path(config.path).expanduser().absolute()  # of this host, whoever wrote the configuration
    folder = Folder(files or RealFiles(), path, shard.shard_id)
    try:
        reader = Reader(folder, shard.version)
        _replay(shard, reader, wire, clock)
        sizes = (config.segment_bytes, config.max_bytes)
        history = WriteLog(folder, reader.end, Mode(config.mode), config.interval_s, *sizes, clock=clock)
        shard.engine.run(lambda: setattr(shard.commit, "log", history))
    except BaseException:
        folder.close()
        raise


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
