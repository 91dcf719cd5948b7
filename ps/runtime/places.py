"""Where work runs, and operations that go from one place to another.

    def prepare(...) -> Operation[int]:
        ...                    # on the thread that asks
        yield ENGINE
        ...                    # on the engine's thread, from here on
        yield IO
        ...                    # on a thread that may wait for the disk
        yield ENGINE
        return version

An operation is one function from end to end. `ps.shard.engine` runs each stretch where the operation has asked for it,
and closes an operation that is given up on the engine's thread: `finally` and `with` let go of what is held there. What
can fail away from the engine is an `Attempt`, whose error is raised on the engine.

`Threads` are the places of a process that serves. Tests give others (`tests/simulation`): there one thread does
everything, in an order that a seed chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from enum import Enum
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class Place(Enum):
    """Where the next stretch of an operation is to run."""

    ENGINE = "the one thread that owns all tables"
    IO = "a thread that reads the disk while somebody waits"
    DOWN = "a thread that writes rows to disk, for which nobody waits"
    CALLER = "the thread that asks, when it has something to say"


ENGINE, IO, DOWN, CALLER = Place

Operation = Generator[Place, Any, T]


class Attempt(Generic[T]):
    """A call that was made away from the engine. `result` returns what it returned, or raises what it raised."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._value: T | None = None
        self._error: BaseException | None = None
        try:
            self._value = call()
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._error = error

    def result(self) -> T:
        """To be called once, on the engine."""
        error, self._error = self._error, None  # its traceback has the frame that holds this object
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._value  # type: ignore[return-value]


def at_once(operation: Operation[T]) -> T:
    """Runs an operation here from end to end, wherever it asks to run."""
    try:
        while True:
            next(operation)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]


class Queue(Protocol):
    """First in, first out. One thread at a time takes items, and waits for them."""

    def put(self, item: Any) -> None:
        """Adds an item. Any thread."""

    def get(self) -> Any:
        """Waits for the first item, and takes it."""

    def qsize(self) -> int:
        """Returns how many items wait."""


class Places(Protocol):
    """The threads of a shard, or what stands for them."""

    io: Executor
    """For IO."""
    down: Executor
    """For DOWN: a read does not queue behind writes that nobody waits for."""
    assistant: Executor
    """One thread, for half of a large update: the engine waits for it."""

    def queue(self) -> Queue:
        """Makes a queue between two of these places."""

    def serve(self, work: Callable[[int | None], object], tasks: Queue) -> Callable[[], None]:
        """Has `work(None)` run as the engine: it takes tasks until it is told to end. `work(1)` does one that is there.
        Returns what waits for its end."""

    def wait(self, future: Future[T], timeout_s: float | None = None) -> T:
        """Waits for a result on the thread that asks. Raises what the future raises, or TimeoutError."""


Start = Callable[[str, Callable[[], object]], Callable[[], None]]
"""Has a function run by a thread of that name until it returns; returns what waits for its end."""


def on_thread(name: str, work: Callable[[], object]) -> Callable[[], None]:
    """Starts a real thread, which does not keep its process from ending."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    return thread.join


IO_THREADS = 4
"""Threads that read the disk for calls that wait; RocksDB's own work is on threads of its own."""
DOWN_THREADS = 2


class Threads:
    """The places of one shard that serves: real threads."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.io: Executor = ThreadPoolExecutor(IO_THREADS, thread_name_prefix=f"io-{name}")
        self.down: Executor = ThreadPoolExecutor(DOWN_THREADS, thread_name_prefix=f"down-{name}")
        self.assistant: Executor = ThreadPoolExecutor(1, thread_name_prefix=f"assistant-{name}")

    def queue(self) -> Queue:
        """Makes a queue whose `put` costs a microsecond."""
        return SimpleQueue()

    def serve(self, work: Callable[[int | None], object], tasks: Queue) -> Callable[[], None]:
        """Starts the engine's thread; returns its `join`."""
        return on_thread(f"engine-{self._name}", partial(work, None))

    def wait(self, future: Future[T], timeout_s: float | None = None) -> T:
        """Waits as futures do."""
        try:
            return future.result(timeout_s)
        finally:
            del future  # it has the error, whose traceback has this frame
