"""The log of a shard's writes, which are logged before they are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from ps.shard.writes.write import Write


class Log(Protocol):
    """The history of one shard."""

    failed: str | None
    """Why it takes no writes any more; None while it is well."""
    when_failed: Callable[[], object]
    """Called once, when it has failed, by any thread."""

    def check(self) -> None:
        """Raises what refuses a write before anything is reserved for it: LogFailed, ResourceExhausted."""

    def append(self, version: int, write: Write) -> None:
        """Takes the write that makes `version`; `write.encode()` has its bytes. An error that it raises poisons the
        shard."""

    def durable(self, version: int) -> Future[None]:
        """Returns what is done when the writes up to `version` may be acknowledged; it raises LogFailed where they may
        not."""

    def stats(self) -> Mapping[str, Any] | None:
        """Returns counters and figures; None where nothing is logged."""

    def close(self) -> None:
        """Keeps what was appended, and ends."""


_DONE: Future[None] = Future()
_DONE.set_result(None)


class NoLog:
    """A log that keeps nothing."""

    failed: str | None = None

    def __init__(self) -> None:
        self.when_failed: Callable[[], object] = lambda: None

    def check(self) -> None:
        """Does nothing."""

    def append(self, version: int, write: Write) -> None:
        """Does nothing."""

    def durable(self, version: int) -> Future[None]:
        """Returns what is done: nothing is kept, and all is acknowledged."""
        return _DONE

    def stats(self) -> Mapping[str, Any] | None:
        """Returns None."""
        return None

    def close(self) -> None:
        """Does nothing."""
