"""The log of a shard's writes, which are logged before they are applied."""

from __future__ import annotations

from typing import Protocol

from ps.shard.writes.write import Write


class Log(Protocol):
    """The history of one shard."""

    def append(self, version: int, write: Write) -> None:
        """Takes the write that makes `version`; `write.encode()` has its bytes. An error that it raises poisons the
        shard."""


class NoLog:
    """A log that keeps nothing."""

    def append(self, version: int, write: Write) -> None:
        """Does nothing."""
