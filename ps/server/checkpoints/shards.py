"""All shards of a service, as whoever has them make or restore a checkpoint sees them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, Protocol

from google.protobuf.message import Message

from ps.config import TableConfig
from ps.errors import DeadlineExceeded, InternalError, PsError, ResourceExhausted, Unavailable
from ps.progress import Told
from ps.runtime.clock import Clock
from ps.v1 import control_pb2 as pb
from ps.wire.methods import Method
from ps.wire.routing import Routing

SAID_EVERY_S = 0.5
"""How often whoever waits for the shards is told how far they are."""


class Shards(Protocol):
    """The shards of a service, by their position in its routing table. Threads: any."""

    def routing(self) -> Routing:
        """Returns the routing table. Raises Unavailable while there is none."""

    def tables(self) -> Sequence[TableConfig]:
        """Returns the tables that exist."""

    def learn(self, tables: Sequence[TableConfig]) -> None:
        """Notes tables that the shards have now."""

    def create_table(self, config: TableConfig) -> None:
        """Creates a table on all shards, or on none."""

    def drop_table(self, name: str) -> None:
        """Drops a table from all shards that have it."""

    def unchanging(self) -> AbstractContextManager[object]:
        """Returns a context in which no table is created, changed or dropped."""

    def call(self, position: int, method: Method, request: Message, timeout_s: float) -> bytes:
        """Calls one shard, once."""

    def stream(self, position: int, method: Method, request: Message, timeout_s: float) -> Generator[bytes]:
        """Calls one shard, once; yields what it answers. The call ends when the generator is closed."""


class Until:
    """A time by which all is to be done."""

    def __init__(self, timeout_s: float, clock: Clock) -> None:
        self._timeout_s, self._clock = timeout_s, clock
        self._ends_at = clock.monotonic() + timeout_s

    def left_s(self) -> float:
        """Returns the seconds left. Raises DeadlineExceeded if there are none."""
        left = self._ends_at - self._clock.monotonic()
        if left <= 0:
            raise DeadlineExceeded(f"it was not done within {self._timeout_s:g} s, and was given up: allow more time")
        return left


class SideBySide:
    """Has all shards do one long piece of work at the same time, each asked by a thread."""

    def __init__(
        self,
        shards: Shards,
        method: Method,
        request: Callable[[int], Message],
        until: Until,
    ) -> None:
        """Asks them. request: by the position of the shard."""
        self._shards, self._method, self._request, self._until = shards, method, request, until
        n = len(shards.routing().shards)
        self._changed = threading.Condition()
        self._heard: list[pb.Progress] = [pb.Progress() for _ in range(n)]
        self._results: list[Any] = [None] * n
        self._errors: dict[int, PsError] = {}
        self._left = n
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._ask, args=(i,), name=f"{method.name}-{i}", daemon=True) for i in range(n)
        ]
        for thread in self._threads:
            thread.start()

    def begun(self, told: Told, stage: str) -> None:
        """Waits until all have said that they have begun, or one has failed."""
        self._wait(lambda: all(heard.stage for heard in self._heard), told, stage)

    def results(self, told: Told) -> list[dict[str, Any]]:
        """Returns the results of all. Raises the first error, with the number of its shard."""
        self._wait(lambda: False, told, "")
        for position in sorted(self._errors):
            raise of_shard(self._errors[position], position) from self._errors[position]
        return self._results

    @property
    def some_done(self) -> bool:
        """Whether a shard has done its work."""
        return any(result is not None for result in self._results)

    def stop(self) -> None:
        """Gives up what is still under way, and waits until the shards have heard of it."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def _wait(self, enough: Callable[[], bool], told: Told, stage: str) -> None:
        """Waits until that is so, all have ended or one has failed."""
        while True:
            with self._changed:
                if not self._left or self._errors or enough():
                    return
                self._changed.wait(SAID_EVERY_S)
                done = sum(heard.done_bytes for heard in self._heard)
                of = sum(heard.all_bytes for heard in self._heard)
                said = stage or next((heard.stage for heard in self._heard if heard.stage), "")
            told(said, done, of)

    def _ask(self, position: int) -> None:
        try:
            self._results[position] = self._follow(position)
        except PsError as error:
            with self._changed:
                if not self._stopped:
                    self._errors[position] = error
        except BaseException as error:  # noqa: BLE001  a thread of its own: whoever waits for it would wait for ever
            with self._changed:
                self._errors[position] = InternalError(f"{self._method.name}: {type(error).__name__}: {error}")
        with self._changed:
            self._left -= 1
            self._changed.notify_all()

    def _follow(self, position: int) -> dict[str, Any]:
        answers = self._shards.stream(position, self._method, self._request(position), self._until.left_s())
        with closing(answers):
            for message in answers:
                progress = pb.Progress.FromString(message)
                if progress.result_json:
                    result: dict[str, Any] = json.loads(progress.result_json)
                    return result
                with self._changed:
                    self._heard[position] = progress
                    self._changed.notify_all()
                if self._stopped:
                    raise Unavailable("it was given up")
        raise InternalError(f"the answer to {self._method.name} ended before its result")


def of_shard(error: PsError, position: int) -> PsError:
    """Returns an error that says which shard it came from."""
    told = type(error)(f"shard {position}: {error}")
    if isinstance(error, ResourceExhausted) and isinstance(told, ResourceExhausted):
        told.retry_after_s = error.retry_after_s
    return told
