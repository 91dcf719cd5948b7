"""Where a shard's writes are logged, before they are applied."""

from __future__ import annotations

from typing import Protocol

from ps.shard.writes.write import Write


class Log(Protocol):
    """The history of one shard."""

    def append(self, version: int, write: Write) -> None:
        """Takes the write that makes `version`; `write.encode()` has its bytes. What it raises poisons the shard."""


class NoLog:
    """Keeps nothing."""

    def append(self, version: int, write: Write) -> None:
        """Does nothing."""
