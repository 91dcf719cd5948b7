"""The client's side of what the shards hold for a prepared step, until it is pushed or forgotten.

A shard keeps the rows of a prepared step in RAM until the step is pushed or its lease ends. So a client that knows that
no push will follow sends `Lease.forget`. That is a hint, as a prepare is: if it is lost, the lease ends after its time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress

from ps.client.bound import NO_HANDLE, Handle
from ps.client.connection.retry import Deadline
from ps.errors import InvalidArgument
from ps.runtime.clock import Clock
from ps.wire.routing import Routing

MAX_PREPARE_WAIT_S = 1.0
"""Seconds that a pull waits for a prepare at most. One that takes longer has failed its purpose, and the pull sends the
ids."""


class Lease:
    """What the shards hold for one step. It does not refer to the step, so it can outlive it. Threads: any."""

    def __init__(
        self,
        number: int,
        routing: Routing,
        prepared: Mapping[int, Future[bool]],
        tell: Callable[[int], object],
        clock: Clock,
    ) -> None:
        """prepared: by shard, whether the shard holds the step. tell: sends a forget to a shard, in the background."""
        self._number = number
        self._routing = routing
        self.preparing = prepared
        """The prepares by shard; each returns whether the shard holds the step."""
        self._tell = tell
        self._waited = False
        self._clock = clock
        self._begun_s = self._answered_s = clock.monotonic()
        self.ended = False
        """Whether the step was pushed or forgotten."""
        for future in prepared.values():
            future.add_done_callback(self._note_answer)

    @property
    def prepare_s(self) -> float:
        """Seconds until the last shard answered the prepare, or until now if one has not."""
        answered = all(future.done() for future in self.preparing.values())
        return (self._answered_s if answered else self._clock.monotonic()) - self._begun_s

    def handle(self, deadline: Deadline) -> Handle:
        """Returns the handle with the shards that are known to hold the step. It waits for the others once, and only
        for a part of the time, because a pull that has to send the ids needs time as well."""
        if self.ended:
            return NO_HANDLE
        if not self._waited:
            wait(self.preparing.values(), timeout=min(MAX_PREPARE_WAIT_S, deadline.remaining_s() / 4))
            self._waited = True
            for future in self.preparing.values():
                future.cancel()  # what has not been sent by now need not be
        return Handle(self._number, self._routing, frozenset(shard for shard in self.preparing if self._holds(shard)))

    def pushed(self, by: Handle) -> None:
        """Notes that the push was applied. Shards that it reached by this handle have forgotten the step; a shard whose
        prepare came later has not, and is told."""
        self._end(set(self.preparing) - by.shards)

    def forget(self) -> None:
        """Tells the shards that no push will follow. Returns at once."""
        if not self.ended:
            self._end(set(self.preparing))

    def _end(self, shards: set[int]) -> None:
        self.ended = True
        for shard in shards:
            self.preparing[shard].cancel()
            self.preparing[shard].add_done_callback(lambda _, shard=shard: self._tell_if_held(shard))  # type: ignore[misc]

    def _tell_if_held(self, shard: int) -> None:
        if self._holds(shard):
            with suppress(InvalidArgument):  # the client is closed
                self._tell(shard)

    def _holds(self, shard: int) -> bool:
        future = self.preparing[shard]
        return future.done() and not future.cancelled() and future.result()

    def _note_answer(self, _: Future[bool]) -> None:
        self._answered_s = self._clock.monotonic()
