"""Threads that calls run on, and the outcomes of the calls, also of those whose futures were never asked.

The threads are daemons. Those of `concurrent.futures` are waited for when the interpreter ends, however long their
calls take: a trainer would hang behind a shard that has died. `ps.client.writes.leaving` decides what happens to calls
that are left at the end.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

IDLE_S = 10.0
"""Seconds after which a thread without a call ends, so that a client that was dropped and not closed keeps no
threads."""

TURN_S = 0.5
"""Seconds that a wait lasts before it is begun again. A signal that comes just as the main thread begins to wait is not
seen until the wait ends, so Ctrl-C would do nothing."""

_current = threading.local()


class Says(Protocol):
    """A write, as far as its outcome is known here."""

    @property
    def is_applied(self) -> bool:
        """Whether the write is known to be applied everywhere."""

    def fate(self) -> str:
        """Returns in words which write it is, and what has become of it on each shard."""


@dataclass
class Outcome:
    """How a call ended, without a reference to the call or its data."""

    heard: bool
    """Whether the caller has asked how the call ended, or need not: the loss of a hint only costs time."""
    write: Says | None = None
    """The write that the call has begun."""
    error: str = ""

    def __str__(self) -> str:
        what = "a call that was not begun" if self.write is None else self.write.fate()
        return f"{what} ({self.error})" if self.error else what


class Task(Future[T]):
    """The future of a call."""

    def __init__(self, hint: bool) -> None:
        super().__init__()
        self.outcome = Outcome(heard=hint)

    def result(self, timeout: float | None = None) -> T:
        """Returns what the call returned, or raises its error; from then on the caller knows how it ended."""
        self.exception(timeout)
        return super().result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits and returns the call's error, None if there is none; from then on the caller knows how it ended."""
        left = math.inf if timeout is None else max(timeout, 0.0)
        while True:
            turn = min(left, TURN_S)
            try:
                found = super().exception(turn)
            except TimeoutError:
                left -= turn
                if left <= 0:
                    raise
            else:
                self.outcome.heard = True
                return found


def current_task() -> Task[Any] | None:
    """Returns the task that the calling thread runs; None if it is not a pool's thread."""
    return getattr(_current, "task", None)


class Pool:
    """Up to `most` daemon threads, which start when there are calls for them."""

    def __init__(
        self, most: int, name: str, failed: Callable[[Outcome], None] = lambda _: None, idle_s: float = IDLE_S
    ) -> None:
        """failed: is told of each call that has raised, on the call's thread. idle_s: how long a thread waits for
        its next call before it ends."""
        self._most = most
        self._idle_s = idle_s
        self._name = name
        self._failed = failed
        self._changed = threading.Condition()
        self._queue: deque[tuple[Task[Any], Callable[[], Any]]] = deque()
        self._unfinished: set[Task[Any]] = set()
        self._threads = self._idle = 0
        self._open = True

    def submit(self, call: Callable[[], T], hint: bool = False) -> Task[T]:
        """Runs a call as soon as a thread is free, and returns its future. Raises RuntimeError after `close`."""
        task: Task[T] = Task(hint)
        with self._changed:
            if not self._open:
                raise RuntimeError("this pool is closed")
            self._queue.append((task, call))
            self._unfinished.add(task)
            if len(self._queue) > self._idle and self._threads < self._most:
                threading.Thread(target=self._serve, name=self._name, daemon=True).start()
                self._threads += 1
            else:
                self._changed.notify()
        return task

    def unfinished(self) -> list[Task[Any]]:
        """Returns the calls that wait or run, in any order."""
        with self._changed:
            return [task for task in self._unfinished if not task.done()]

    def close(self, timeout_s: float | None = None) -> bool:
        """Takes no more calls and waits for the present ones; returns True if all have ended."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        left = math.inf if timeout_s is None else timeout_s
        waiting: Collection[Future[Any]] = self.unfinished()
        while waiting and left > 0:
            waiting = wait(waiting, min(left, TURN_S)).not_done
            left -= TURN_S
        return all(task.done() for task in waiting)

    def _serve(self) -> None:
        while (next_ := self._next()) is not None:
            task, call = next_
            if task.set_running_or_notify_cancel():
                _current.task = task
                try:
                    result = call()
                except BaseException as error:  # noqa: BLE001  whoever asks for the result gets it
                    task.outcome.error = f"{type(error).__name__}: {error}"
                    self._failed(task.outcome)  # first: whoever waits for the task's end may be ending the process
                    task.set_exception(error)
                else:
                    task.set_result(result)
                    del result
                _current.task = None
            with self._changed:
                self._unfinished.discard(task)
            del task, call, next_  # they hold gradients: not until the next call

    def _next(self) -> tuple[Task[Any], Callable[[], Any]] | None:
        """Returns the next task for this thread; None: the thread must end."""
        with self._changed:
            self._idle += 1
            while not self._queue and self._open and self._changed.wait(self._idle_s):
                pass
            self._idle -= 1
            if self._queue:
                return self._queue.popleft()
            self._threads -= 1
            return None
