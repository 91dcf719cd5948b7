"""The engine thread: the only one that touches tables, ledger and steps. Tasks run in the order of submission."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Literal, TypeVar

from ps.errors import ResourceExhausted, Unavailable
from ps.shard.caller import PATIENT, Caller

T = TypeVar("T")
Task = tuple[Callable[[], object], "Future[object]", float]


class Engine:
    """One thread and its queue. `clock` is for the wait figures only: no result depends on it."""

    def __init__(self, name: str, max_queue: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._tasks: SimpleQueue[Task | Literal["look"] | None] = SimpleQueue()
        self._looks: deque[tuple[Callable[[], object], Future[object]]] = deque()
        self._max_queue = max_queue
        self._clock = clock
        self._closing = threading.Lock()
        self._closed = False
        self.tasks_done = 0
        self.wait_s = 0.0
        self.busy_s = 0.0
        self._thread = threading.Thread(target=self._loop, name=f"engine-{name}", daemon=True)
        self._thread.start()

    @property
    def queue_length(self) -> int:
        """Tasks that wait."""
        return self._tasks.qsize()

    def submit(self, task: Callable[[], T], caller: Caller = PATIENT) -> Future[T]:
        """Queues a task, which is not begun when the caller has gone by then: it raises Unavailable. Raises
        ResourceExhausted when too many wait."""
        if self._tasks.qsize() >= self._max_queue:
            raise ResourceExhausted(f"{self._max_queue} requests wait for the engine already", retry_after_s=0.05)

        def wanted() -> T:
            caller.check()
            return task()

        return self.post(wanted)

    def post(self, task: Callable[[], T]) -> Future[T]:
        """Queues a task that belongs to one accepted before: however many wait."""
        future: Future[T] = Future()
        with self._closing:  # nothing may queue behind the closing mark, where nobody would answer it
            if self._closed:
                raise Unavailable("the shard is stopping")
            self._tasks.put((task, future, self._clock()))  # type: ignore[arg-type]
        return future

    def look(self, task: Callable[[], T]) -> Future[T]:
        """Queues a short task that only reads: it is done as soon as the one that runs has ended, before those that
        wait."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise Unavailable("the shard is stopping")
            self._looks.append((task, future))  # type: ignore[arg-type]
            self._tasks.put("look")  # wakes a thread that waits
        return future

    def run(self, task: Callable[[], T], caller: Caller = PATIENT) -> T:
        """Runs a task and waits for its result."""
        return self.submit(task, caller).result()

    def close(self) -> None:
        """Finishes what is queued, then ends the thread."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._tasks.put(None)
        self._thread.join()

    def _loop(self) -> None:
        while (item := self._tasks.get()) is not None:
            self._do_looks()
            if item == "look":
                continue
            task, future, submitted = item
            started = self._clock()
            self.wait_s += started - submitted
            try:
                future.set_result(task())
            except BaseException as error:  # noqa: BLE001  handed to the one who asked; the engine lives on
                future.set_exception(error)
            self.busy_s += self._clock() - started
            self.tasks_done += 1
            del item, task, future  # their arrays are free before the next wait, not after it
        self._do_looks()

    def _do_looks(self) -> None:
        while self._looks:
            task, future = self._looks.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(task())
                except BaseException as error:  # noqa: BLE001  as of any task
                    future.set_exception(error)
