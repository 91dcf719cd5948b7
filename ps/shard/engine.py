"""The engine: the one thread that touches tables, ledger and steps. It does tasks in the order of submission.

It also drives operations (`ps.runtime.places`): each stretch of one runs where the operation asks for it.

    start   the operation goes on by itself; where it asks for CALLER it waits until its caller lets it advance
    drive   for a thread that waits for the end: that thread also does what is for IO, and queues for no pool
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

from ps.errors import ResourceExhausted, Unavailable
from ps.runtime.places import ENGINE, Operation, Place, Places
from ps.shard.caller import PATIENT, Caller
from ps.shard.running import Running

T = TypeVar("T")
Task = Callable[[], object]


class Engine:
    """One thread and its queue. `clock`, in seconds, is for figures of waiting times: no result depends on it."""

    def __init__(self, places: Places, max_queue: int, clock: Callable[[], float]) -> None:
        self.places = places
        self._tasks = places.queue()  # (task, when it was put; None: the last). No task: there are looks
        self._looks: deque[Task] = deque()
        self._max_queue = max_queue
        self._clock = clock
        self._closing = threading.Lock()
        self._closed = False
        self.tasks_done = 0
        self.wait_s = 0.0
        self.busy_s = 0.0
        self._join = places.serve(self._work, self._tasks)

    @property
    def queue_length(self) -> int:
        """How many tasks wait."""
        return self._tasks.qsize()

    def start(self, operation: Operation[T], caller: Caller = PATIENT) -> Running[T]:
        """Begins an operation, on this thread up to its first place. Raises ResourceExhausted if too many tasks wait.
        If the caller has gone before a stretch on the engine, the operation raises Unavailable there."""
        running = Running(self, operation, caller, next(operation))
        if running.place is not ENGINE:
            try:
                running.hand_over()
            except RuntimeError:  # the pool has ended
                running.advance(error=self.stopping())
            return running
        self._check_length()
        with self._closing:
            self._check_open()
            self._tasks.put((running.advance, self._clock()))
        return running

    def drive(self, operation: Operation[T], caller: Caller = PATIENT) -> T:
        """Runs an operation for this thread, which waits for its end. Raises the errors of `start`."""
        try:
            place = next(operation)
            self._check_length()
            while True:
                if place is ENGINE:
                    place = self.places.wait(self.post(partial(_stretch, operation, caller)))
                else:
                    place = next(operation)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except BaseException:
            self.close_operation(operation)
            raise

    def close_operation(self, operation: Operation[Any]) -> None:
        """Lets an operation that is given up release what it holds."""
        if operation.gi_frame is None:  # type: ignore[attr-defined]  # it has ended
            return
        try:
            self.post(operation.close)
        except Unavailable:
            self.join()
            operation.close()

    def submit(self, task: Callable[[], T], caller: Caller = PATIENT) -> Future[T]:
        """Queues a task. If the caller has gone before it begins, it raises Unavailable instead. Raises
        ResourceExhausted if too many tasks wait."""
        self._check_length()

        def wanted() -> T:
            caller.check()
            return task()

        return self.post(wanted)

    def post(self, task: Callable[[], T]) -> Future[T]:
        """Queues a task that belongs to one accepted before, however many tasks wait."""
        future: Future[T] = Future()
        self.put(partial(_settle, future, task))
        return future

    def put(self, task: Task) -> None:
        """Queues a task that raises nothing. Raises Unavailable if the engine is closed."""
        with self._closing:  # nothing may queue behind the closing mark, where nobody would answer it
            self._check_open()
            self._tasks.put((task, self._clock()))

    def look(self, task: Callable[[], T]) -> Future[T]:
        """Queues a short task that only reads: it runs as soon as the present task has ended, before those that
        wait."""
        future: Future[T] = Future()
        with self._closing:
            self._check_open()
            self._looks.append(partial(_settle, future, task))
            self._tasks.put((None, 0.0))  # wakes a thread that waits
        return future

    def run(self, task: Callable[[], T], caller: Caller = PATIENT) -> T:
        """Runs a task and waits for its result."""
        return self.places.wait(self.submit(task, caller))

    def finish(self, task: Callable[[], T]) -> T:
        """Runs a task that belongs to one accepted before, and waits for its result."""
        return self.places.wait(self.post(task))

    def close(self, last: Task = lambda: None) -> None:
        """Finishes queued tasks, then runs `last`, and ends the thread. Raises the error of `last`, the first time."""
        future: Future[object] | None = None
        with self._closing:
            if not self._closed:
                self._closed, future = True, Future()
                self._tasks.put((partial(_settle, future, last), None))
        self.join()
        if future is not None:
            future.result()

    def join(self) -> None:
        """Waits until the thread has ended, after `close`."""
        self._join()

    def stopping(self) -> Unavailable:
        """Returns the error that is raised when the shard accepts no more work."""
        return Unavailable("the shard is stopping")

    def _check_length(self) -> None:
        if self._tasks.qsize() >= self._max_queue:
            raise ResourceExhausted(f"{self._max_queue} requests wait for the engine already", retry_after_s=0.05)

    def _check_open(self) -> None:
        if self._closed:
            raise self.stopping()

    def _work(self, most: int | None = None) -> bool:
        """Runs tasks as they come until the engine is closed, or so many of the queued ones; returns whether it is
        closed."""
        for _ in repeat(None) if most is None else repeat(None, most):
            item = self._tasks.get()
            while self._looks:
                self._looks.popleft()()
            task, put = item
            if put is None:
                task()
                return True
            if task is None:
                continue
            started = self._clock()
            self.wait_s += started - put
            task()
            self.busy_s += self._clock() - started
            self.tasks_done += 1
            del item, task  # their arrays are free before the next wait, not after it
        return False


def _stretch(operation: Operation[Any], caller: Caller) -> Place:
    """Runs a stretch on the engine; StopIteration has what the operation returns."""
    return operation.throw(caller.error()) if caller.gone else next(operation)


def _settle(future: Future[T], task: Callable[[], T]) -> None:
    """Runs a task unless its future was cancelled. Raises nothing."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(task())
    except BaseException as error:  # noqa: BLE001  handed to the one who asked; without this frame, which has the future
        future.set_exception(error.with_traceback(error.__traceback__ and error.__traceback__.tb_next))
