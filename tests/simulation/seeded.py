"""A shard in one thread: at every wait a seed chooses what runs next. The same seed gives the same order again.

The code is the shard's own; only its places, its clock and its entropy (`ps.runtime`) are others. What there is to
choose from: the engine's next task, any read or write of the disk that waits, and any caller who may go on. At each
choice time moves on by as much as the seed says.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, TypeVar

from ps.runtime.clock import Waitable
from ps.runtime.places import CALLER, Operation, Queue
from ps.shard.caller import PATIENT, Caller
from ps.shard.engine import Engine
from ps.shard.running import Running
from tests.clocks import ByHand

T = TypeVar("T")
MOST_STEPS = 200_000
STEPS_S = [0.0, 0.0, 0.0, 0.001, 0.001, 0.1]
"""What a choice may take: where it is nothing, two things happen at the same time."""


class Seeded:
    """Places in one thread, their clock and their entropy."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.entropy = random.Random(self.random.getrandbits(64))
        self.clock = SeededClock(self, self.random.uniform(0, 1e6))
        self.io, self.down, self.assistant = Pool(self), Pool(self), AtOnce()
        self.callers: list[Running[Any]] = []
        self._tasks: Queue = Waiting(self)
        self._work: Callable[[int | None], object] = lambda _: True
        self._working = self._calling = self._ended = False
        self._steps = 0

    # places

    def queue(self) -> Queue:
        return Waiting(self)

    def serve(self, work: Callable[[int | None], object], tasks: Queue) -> Callable[[], None]:
        self._work, self._tasks = work, tasks
        return lambda: self.until(lambda: self._ended)

    def wait(self, future: Future[T], timeout_s: float | None = None) -> T:
        self.until(future.done)
        return future.result(0)

    # what the seed chooses

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            assert self.step(), "nothing can go on, and somebody waits"

    def step(self) -> bool:
        """Does one thing that can be done; False where there is none."""
        self._steps += 1
        assert self._steps < MOST_STEPS, "it does not end"
        choices: list[Callable[[], object]] = []
        if self._tasks.qsize() and not self._working and not self._ended:
            choices.append(self._engine)
        choices += [pool.any for pool in (self.io, self.down) if pool.tasks]
        self.callers = [running for running in self.callers if not running.ended]
        if not self._working and not self._calling:
            choices += [partial(self._reply, running) for running in self.callers if running.waits]
        if choices:
            self.clock.now += self.random.choice(STEPS_S)
            self.random.choice(choices)()
        return bool(choices)

    def idle(self) -> None:
        """Goes on until nothing is left to do."""
        while self.step():
            pass

    def start(self, operation: Operation[T], engine: Engine, caller: Caller = PATIENT) -> Running[T]:
        """Begins an operation, which goes on where it asks for its caller when the seed says so."""
        running = engine.start(operation, caller)
        self.callers.append(running)
        return running

    def _reply(self, running: Running[Any]) -> None:
        self._calling = True
        try:
            running.advance()
        finally:
            self._calling = False

    def _engine(self) -> None:
        self._working = True
        try:
            self._ended = bool(self._work(1))
        finally:
            self._working = False


class SeededClock(ByHand):
    """Time that moves on with what is done. Whoever waits for it has others go on; where nobody can, it is there."""

    def __init__(self, places: Seeded, now: float) -> None:
        super().__init__(now)
        self._places = places

    def sleep(self, seconds: float, /) -> None:
        end = self.now + seconds
        while self.now < end and self._places.step():
            pass
        self.now = max(self.now, end)

    def wait(self, on: Waitable, timeout_s: float) -> bool:
        end = self.now + timeout_s
        while not (happened := on.wait(0)) and self.now < end:
            if not self._places.step():
                self.now = end
        return happened


class Pool(Executor):
    """Threads that may wait for the disk: what waits here is done in any order."""

    def __init__(self, places: Seeded) -> None:
        self.tasks: list[Callable[[], object]] = []
        self._places = places
        self._closed = False

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        if self._closed:
            raise RuntimeError("the pool has ended")
        future: Future[Any] = Future()
        self.tasks.append(lambda: future.set_result(task(*arguments, **named)))
        return future

    def any(self) -> None:
        self.tasks.pop(self._places.random.randrange(len(self.tasks)))()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._closed = True
        self._places.until(lambda: not self.tasks)


class AtOnce(Executor):
    """A second pair of hands that is done before the first begins."""

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(task(*arguments, **named))
        except Exception as error:  # noqa: BLE001  as a pool does
            future.set_exception(error)
        return future


class Waiting:
    """A queue whose reader has others go on while it is empty."""

    def __init__(self, places: Seeded) -> None:
        self._items: list[Any] = []
        self._places = places

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        self._places.until(lambda: bool(self._items))
        return self._items.pop(0)

    def qsize(self) -> int:
        return len(self._items)


def answering(operation: Operation[T], answer: object) -> Operation[T]:
    """Returns an operation whose caller, when it is asked, says this."""
    place = next(operation)
    while True:
        try:
            yield place
        except Exception as error:  # noqa: BLE001  for the operation
            step = partial(operation.throw, error)
        else:
            step = partial(operation.send, answer if place is CALLER else None)
        try:
            place = step()
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
