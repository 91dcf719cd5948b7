"""What a shard with a log can begin from, before it carries out the log: the part of a clean stop, or a checkpoint.

The newest version comes first. What is damaged, or is so old that the log does not go on behind it, is passed over. A
checkpoint that was passed over and is newer than where the log ends is foreign from then on (`ps.durability.origin`):
it is no start any more, also if somebody repairs it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.source import PartSource
from ps.durability.log.folder import Folder
from ps.durability.origin import Origin
from ps.durability.state import kept, restore
from ps.durability.stopped import Stopped
from ps.errors import CheckpointCorrupt, DataLoss, LogCorrupt, NotFound
from ps.shard import Shard

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """One state to begin from."""

    version: int
    name: str
    checkpoints: Checkpoints
    is_stopped: bool

    def source(self, shard: int) -> PartSource:
        """Returns the part of a shard. Raises CheckpointCorrupt and DiskError."""
        return self.checkpoints.source(self.name, shard)

    def __str__(self) -> str:
        kind = "the part of a clean stop" if self.is_stopped else "checkpoint"
        return f"{kind} {self.name} of {self.checkpoints.url} (version {self.version:,})"


def begin(shard: Shard, folder: Folder, origin: Origin, checkpoints: Checkpoints | None) -> Start | None:
    """Makes a new shard what the best state is that its log goes on behind; None: the log has all, or there is nothing.
    `checkpoints`: of the service. Raises LogCorrupt where the log does not begin at its beginning and nothing is left
    that it goes on behind, or where there is no log and nothing that is there can be taken; DiskError; and what
    `restore` raises that is not for want of whole files."""
    firsts = folder.segments()
    passed: list[str] = []
    for start in _starts(folder, firsts, origin, checkpoints):
        if firsts and firsts[0] > start.version + 1:
            passed.append(f"{start}: the log begins with version {firsts[0]:,}")
            continue
        try:
            restore(shard, start.source(shard.shard_id))
        except (DataLoss, NotFound) as error:
            passed.append(f"{start}: {error}")
            log.critical("%s: %s IS PASSED OVER, the one before it is taken: %s", folder.path, start, error)
            continue
        if not start.is_stopped:
            kept(shard, start.version)
        log.info("%s: the shard begins from %s", folder.path, start)
        return start
    if firsts and firsts[0] > 1:
        raise LogCorrupt(
            f"{folder.segment(firsts[0])}: the log begins with version {firsts[0]:,}, and nothing that leads up to it "
            f"is left ({'; '.join(passed) or 'there is no checkpoint'}): bring back the checkpoint that it was cut "
            "behind; or start the service with an empty log.path, which goes back to the newest checkpoint of "
            "checkpoint.path"
        )
    lost = [*passed, *([] if firsts or checkpoints is None else checkpoints.unreadable())]
    if not firsts and (lost or origin.epoch):
        raise LogCorrupt(
            f"{folder.path}: there is no log any more, and nothing that can be taken in its place "
            f"({'; '.join(lost) or 'there is no checkpoint'}). Bring back the log or a checkpoint; or, if the shard is "
            "to begin without rows, start it with a new log.path and without these checkpoints"
        )
    return None


def foreign(shard: Shard, start: Start | None, origin: Origin, checkpoints: Checkpoints | None) -> Sequence[str]:
    """Returns the names of the checkpoints of another history than that of the shard, which has carried out its log. A
    part of a clean stop is never older than a checkpoint of its history: no store need be asked. Raises DiskError."""
    if checkpoints is None or (start is not None and start.is_stopped):
        return origin.foreign
    there = set(checkpoints.names())
    return sorted((there & set(origin.foreign)) | set(checkpoints.beyond(shard.shard_id, shard.version)))


def _starts(folder: Folder, firsts: Sequence[int], origin: Origin, checkpoints: Checkpoints | None) -> Iterator[Start]:
    stopped = Stopped(folder)
    found = stopped.newest()
    left = None if found is None else Start(found.version, found.name, stopped.checkpoints, True)
    if left is not None and firsts and firsts[-1] <= left.version + 1:
        yield left  # at the end of the log, or near: nobody need ask a store far away
        left = None
    if checkpoints is not None:
        for name in _of_service(checkpoints, origin):
            parts = [part for part in checkpoints.manifest(name).parts if part.shard == folder.shard]
            if len(parts) != 1:
                continue
            if left is not None and left.version >= parts[0].version:
                yield left
                left = None
            yield Start(parts[0].version, name, checkpoints, False)
    if left is not None:
        yield left


def _of_service(checkpoints: Checkpoints, origin: Origin) -> Iterator[str]:
    """Yields the checkpoints of the service with as many shards, the newest first."""
    for each in reversed(checkpoints.list()):
        if each.service == origin.service and each.shards == origin.shards and each.name not in origin.foreign:
            try:
                checkpoints.manifest(each.name)
            except (CheckpointCorrupt, NotFound):
                continue  # it was removed just now
            yield each.name
