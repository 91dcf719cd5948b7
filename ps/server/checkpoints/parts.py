"""One shard's side of checkpoints: it writes its part, hears which are kept, and is filled from one.

A restore with a log in three steps, so that a crash in between leaves either a new shard or one that comes back:

    restore    the log of the new shard ends; the shard is closed to all but checkpoints
    write      its part of a checkpoint that has what was restored
    keep       the log begins behind the version of that checkpoint; the shard is open
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from ps.durability.checkpoint.catalog import Checkpoints
from ps.durability.checkpoint.manifest import Part
from ps.durability.log.log import WriteLog, outlive
from ps.durability.state import checkpoint, kept
from ps.errors import PsError, ResourceExhausted
from ps.progress import Told
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.server.checkpoints.filling import Filling, Wanted
from ps.server.checkpoints.task import Outcome, Task
from ps.server.checkpoints.watched import WatchedSink
from ps.server.handlers.service import ShardService

PART = TypeAdapter(Part)
"""A part as JSON, and back."""

RETRY_S = 1.0


@dataclass(frozen=True)
class Kept:
    """A checkpoint that is complete: the only one that the next can build on."""

    url: str
    name: str


class Parts:
    """The parts of one shard. Threads: any; one part at a time is written or restored."""

    def __init__(self, service: ShardService, files: Files | None, clock: Clock) -> None:
        self._service, self._shard = service, service.shard
        self._files, self._clock = files, clock
        self._filling = Filling(service, files, clock)
        self._guard = threading.Lock()
        self._name = ""
        self._task: Task | None = None
        self._written: dict[str, int] = {}
        self._kept: Kept | None = None
        self._last: dict[str, Any] | None = None

    def write(self, url: str, name: str, base: str | None) -> Task:
        """Begins to write a part; the stage of the task is "" until its cut is made. The result is {"part": ...}. The
        base is used where it is the last checkpoint that was kept. Raises ResourceExhausted if a part of another
        checkpoint is under way."""
        return self._begin(name, lambda told: self._write(url, name, base, told))

    def keep(self, url: str, name: str, truncate: int) -> None:
        """Notes that a checkpoint is complete, and removes from the log what makes version `truncate` or an older
        one."""
        version = self._written.get(name)
        if version is None:
            return  # of the process that was here before
        kept(self._shard, version)
        self._written, self._kept = {}, Kept(url, name)
        self._filling.open()
        history = self._shard.commit.log
        if truncate and isinstance(history, WriteLog):
            history.truncate(truncate)

    def give_up(self, name: str) -> None:
        """Ends a part of this checkpoint, if one is under way, and waits until nothing of it is written any more."""
        with self._guard:
            task = self._task if self._name == name else None
        if task is not None:
            task.cancel()
            task.wait()

    def restore(self, wanted: Wanted) -> Task:
        """Begins to fill the shard. The result is {"version", "tables": their configurations}. Raises
        ResourceExhausted if a part of a checkpoint is under way."""
        return self._begin(wanted.name, lambda told: self._filling.fill(wanted, told))

    def stats(self) -> dict[str, Any]:
        """Returns the part that is under way, if one is, and the last that was written."""
        task, now = self._task, None
        if task is not None and not task.ended:
            now = {
                "name": self._name,
                "stage": task.stage,
                "done_bytes": task.done_bytes,
                "all_bytes": task.all_bytes,
            }
        return {"under_way": now, "last": self._last}

    def close(self) -> None:
        """Gives up what is under way."""
        if self._task is not None:
            self._task.cancel()

    def _begin(self, name: str, work: Callable[[Told], Outcome]) -> Task:
        with self._guard:
            if self._task is not None and not self._task.ended:
                raise ResourceExhausted(f"checkpoint {self._name} is under way ({self._task.stage})", RETRY_S)
            self._name, self._task = name, Task(f"checkpoint-{self._shard.shard_id}", work)
            return self._task

    def _write(self, url: str, name: str, base: str | None, told: Told) -> Outcome:
        started = self._clock.monotonic()
        checkpoints = Checkpoints(url, self._files, self._clock)
        base = base if base is not None and self._kept == Kept(url, base) else None
        since = None if base is None else checkpoints.manifest(base).parts[self._shard.shard_id].since()
        writer = checkpoints.part(name, self._shard.shard_id, base)
        try:
            version = checkpoint(self._shard, WatchedSink(writer, self._shard, told, whole=base is None), since)
            outlive(self._shard.commit.log, version)
            part = writer.finish()
            told("written", part.nbytes, part.nbytes)  # raises if it was given up meanwhile
        except BaseException:
            with suppress(PsError):  # what is left is removed with the checkpoint
                writer.abort()
            raise
        self._written[name] = version
        self._last = {
            "name": name,
            "version": version,
            "base": base,
            "nbytes": part.nbytes,
            "seconds": self._clock.monotonic() - started,
        }
        return {"part": PART.dump_python(part, mode="json")}
