"""The checkpoints of a service: on demand, and in a rhythm. The coordinator makes them, or a shard that is a service
by itself.

One checkpoint or restore at a time. Whoever asks for another meanwhile is told when to ask again; whoever asks again
for the same, because the answer was lost, joins it or gets its result.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from ps.config import ServiceConfig
from ps.errors import PsError, ResourceExhausted
from ps.progress import Told
from ps.runtime.clock import Clock
from ps.runtime.files import Files
from ps.seconds import LONGEST_S
from ps.server.checkpoints.making import Maker
from ps.server.checkpoints.restoring import Request, Restorer
from ps.server.checkpoints.shards import Shards, Until
from ps.server.checkpoints.task import Outcome, Task
from ps.v1 import control_pb2 as pb
from ps.wire import requests

log = logging.getLogger(__name__)

RETRY_S = 1.0
NOBODY = (0, 0)
"""Who asks for a checkpoint that is due."""

Who = tuple[int, int]
"""Worker and sequence."""


class ServiceCheckpoints:
    """Makes and restores checkpoints of a service. Threads: any."""

    def __init__(
        self, shards: Shards, config: ServiceConfig, clock: Clock, files: Files | None = None, service: str = "default"
    ) -> None:
        """service: its name, which says whose checkpoints are removed. Begins the rhythm, if there is one."""
        self._shards, self._clock = shards, clock
        self._maker = Maker(shards, config, service, files, clock)
        self._restorer = Restorer(shards, config, self._maker, files, clock)
        self._every_s = config.checkpoint.every_s
        self._guard = threading.Lock()
        self._task: Task | None = None
        self._who: Who = NOBODY
        self._stopped = threading.Event()
        self._tried_at = clock.monotonic()
        self.figures = Figures(self._every_s, clock)
        self._thread: threading.Thread | None = None
        if self._every_s is not None:
            self._thread = threading.Thread(target=self._keep_rhythm, name="checkpoints", daemon=True)
            self._thread.start()

    def checkpoint(self, data: bytes) -> Iterator[bytes]:
        """Serves Control.Checkpoint."""
        request = requests.control(pb.CheckpointRequest, data)
        self._maker.url(request.url)
        work = self._making(request.url, request.full, _seconds(request.wait_ms))
        yield from self._begin((request.worker_id, request.sequence), "a checkpoint", work).messages()

    def restore(self, data: bytes) -> Iterator[bytes]:
        """Serves Control.Restore."""
        request = requests.control(pb.RestoreRequest, data)
        until = Until(_seconds(request.wait_ms), self._clock)
        wanted = Request(request.url, request.log, dict(request.at), dict(request.tables), request.values_only)
        who = (request.worker_id, request.sequence)
        task = self._begin(who, "a restore", lambda told: self._restorer.restore(wanted, until, told))
        yield from task.messages()

    def stop(self) -> None:
        """Ends the rhythm, and gives up what is under way."""
        self._stopped.set()
        with self._guard:
            task = self._task
        if task is not None:
            task.cancel()
            task.wait()
        if self._thread is not None:
            self._thread.join()

    def _making(self, url: str, full: bool, timeout_s: float) -> Callable[[Told], Outcome]:
        until = Until(timeout_s, self._clock)

        def work(told: Told) -> Outcome:
            started = self._tried_at = self._clock.monotonic()
            try:
                manifest = self._maker.make(url, full, until, told)
            except BaseException:
                self.figures.failed()
                raise
            self.figures.made(manifest.nbytes, self._clock.monotonic() - started)
            return {"name": manifest.name}

        return work

    def _begin(self, who: Who, what: str, work: Callable[[Told], Outcome]) -> Task:
        """Begins a task, or returns the one that these have begun before."""
        with self._guard:
            task = self._task
            if task is not None and who == self._who != NOBODY and task.error is None:
                return task
            if task is not None and not task.ended:
                share = f", {task.done_bytes / task.all_bytes:.0%} done" if task.all_bytes else ""
                raise ResourceExhausted(f"{task.name} is under way ({task.stage}{share}): ask again later", RETRY_S)
            self._who, self._task = who, Task(what, work)
            return self._task

    def _keep_rhythm(self) -> None:
        assert self._every_s is not None
        while not self._stopped.is_set():
            left = self._tried_at + self._every_s - self._clock.monotonic()
            if left > 0:
                self._clock.wait(self._stopped, left)
                continue
            self._tried_at = self._clock.monotonic()
            try:
                self._make_due()
            except PsError as error:
                log.warning("a checkpoint was due, and failed: %s: %s", type(error).__name__, error)

    def _make_due(self) -> None:
        if not self._shards.routing().shards or not self._shards.tables():
            return  # there is nothing to lose yet
        task = self._begin(NOBODY, "a checkpoint", self._making("", full=False, timeout_s=LONGEST_S))
        task.wait()
        if task.error is not None:
            raise task.error


class Figures:
    """What is known of the checkpoints of a service. Threads: any."""

    def __init__(self, every_s: float | None, clock: Clock) -> None:
        self.every_s = every_s
        self._clock = clock
        self._since = clock.monotonic()
        self.failures = self.completed = 0
        self.nbytes = 0
        """Bytes of the last one that is complete."""
        self.seconds = 0.0
        """How long that took."""

    @property
    def age_s(self) -> float:
        """How long ago the last one was complete, or this process began."""
        return self._clock.monotonic() - self._since

    def made(self, nbytes: int, seconds: float) -> None:
        """Notes a checkpoint."""
        self.completed += 1
        self.nbytes, self.seconds = nbytes, seconds
        self._since = self._clock.monotonic()

    def failed(self) -> None:
        """Notes one that failed."""
        self.failures += 1


def _seconds(wait_ms: int) -> float:
    return min(max(wait_ms / 1000, 0.001), LONGEST_S)
