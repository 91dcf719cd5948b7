"""Whether a checkpoint of a shard is under way, and whether what it has copied is written soon enough. The engine
thread's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ps.errors import ResourceExhausted
from ps.storage.ram.saving import Waiting

MOST_BYTES = 64 << 20
"""How many bytes of rows may be copied and not written yet before writes are refused, at most."""
RAM_SHARE = 32
"""These bytes are one part in so many of `memory.ram_bytes` too, at most."""
RETRY_S = 0.05
"""Seconds after which a write that was refused may be taken: some slices are written by then."""


class Saves:
    """The checkpoint that is under way, if one is."""

    def __init__(self, ram_bytes: int | None) -> None:
        self.limit = MOST_BYTES if ram_bytes is None else min(MOST_BYTES, ram_bytes // RAM_SHARE)
        """How many bytes of rows may be copied and not written yet before writes are refused."""
        self.waiting: Waiting | None = None
        """What was copied and waits, from the cut on."""
        self._under_way = False

    def check(self) -> None:
        """Raises ResourceExhausted, before a write, where too much waits to be written."""
        if self.waiting is not None and self.waiting.full:
            raise ResourceExhausted(
                f"{self.waiting.nbytes:,} bytes of rows were copied for the checkpoint under way and are not written "
                f"yet, and a write would change more: the limit is {self.limit:,}. It is written too slowly: retry, or "
                "let checkpoint.path be on a faster disk",
                RETRY_S,
            )

    @contextmanager
    def one(self) -> Iterator[None]:
        """Guards a checkpoint: there is one at a time. Raises ResourceExhausted where another is under way."""
        if self._under_way:
            raise ResourceExhausted("a checkpoint of this shard is under way: retry when it has ended", 1.0)
        self._under_way = True
        try:
            yield
        finally:
            self._under_way = False
