"""Runs a client's background tasks, and its calls side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from ps.client.connection.pool import Pool, Task
from ps.client.connection.retry import Deadline
from ps.client.writes import leaving
from ps.errors import InvalidArgument

T = TypeVar("T")

END_S = 1.0
"""Seconds that calls may take to return after their connections were closed."""
CLOSED = "this client is closed; ps.connect makes another"


class Tasks:
    """The threads of one client. Threads: any."""

    def __init__(self, check_usable: Callable[[], None]) -> None:
        """check_usable: raises InvalidArgument if the client must not be used."""
        self._check_usable = check_usable
        # Two pools: a background task (a push) waits for its calls to the shards, which must never queue behind it.
        self._background = Pool(16, "ps-background", leaving.failed)
        self._calls = Pool(64, "ps-call")
        self._left: set[Future[Any]] = set()

    def submit(self, task: Callable[[], T], *, hint: bool = False) -> Future[T]:
        """Runs a task in the background and returns its future. If it raises and its future is never asked, an error is
        printed at the end of the process, unless the task is a hint."""
        self._check_usable()
        return _start(self._background, task, hint)

    def each(self, calls: Sequence[Callable[[], T]], deadline: Deadline, *, writes: bool = False) -> list[T]:
        """Runs calls side by side; waits for all, then raises the first error. The exception of a signal that
        interrupts the caller (Ctrl-C, an alarm) is raised at once: the calls go on to their end, and are not retried.
        writes: whether `close` then gives these calls a moment to end.

        Signals reach the main thread. In the middle of a call, one would leave gRPC with a call that stays open on the
        shard, and threads that send for it, for good. So the main thread makes no call itself; any other thread makes
        the last one.
        """
        self._check_usable()
        futures: list[Future[T]] = []
        try:
            here = int(threading.current_thread() is not threading.main_thread())
            futures.extend(_start(self._calls, call, hint=True) for call in calls[: len(calls) - here])
            for call in calls[len(futures) :]:
                last: Future[T] = Future()
                futures.append(last)
                try:
                    last.set_result(call())
                except Exception as error:  # noqa: BLE001  raised below, after the others have ended
                    last.set_exception(error)
            for future in futures:
                future.exception()  # waits
        except BaseException:
            deadline.end()
            for future in futures:
                if not future.cancel() and writes:  # what has not begun need not
                    self._left.add(future)
                    future.add_done_callback(self._left.discard)
            raise
        return [future.result() for future in futures]

    def unfinished(self) -> list[Task[Any]]:
        """Returns the background tasks that wait or run, without hints."""
        return [task for task in self._background.unfinished() if not task.outcome.heard]

    def left(self) -> list[Future[Any]]:
        """Returns the calls of interrupted writes that have not ended yet."""
        return list(self._left)

    def wait(self, timeout_s: float | None) -> None:
        """Takes no more background tasks and waits for the present ones, for at most so long; then waits a moment for
        the calls of interrupted writes."""
        self._background.close(timeout_s)  # its tasks make calls: only then is the rest closed
        wait(self.left(), leaving.GRACE_S)

    def end(self) -> None:
        """Takes no more tasks or calls, and waits a moment for calls whose connections have been closed."""
        for pool in (self._calls, self._background):
            pool.close(END_S)


def _start(pool: Pool, task: Callable[[], T], hint: bool) -> Future[T]:
    try:
        return pool.submit(task, hint)
    except RuntimeError as error:  # the pool was shut down: another thread is closing the client
        raise InvalidArgument(CLOSED) from error
