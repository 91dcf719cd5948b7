"""The ledger: what makes a retried write safe.

Every write carries (worker_id, sequence) and a digest of its body. A known sequence with the same digest is answered
from here and not applied again; with another digest it is an error. Per worker the last `window` sequences are kept;
one that is older than all of them cannot be judged and is refused, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from ps.errors import SequenceConflict

R = TypeVar("R")

MAX_WORKERS = 65_536
ENTRY_BYTES = 300
"""Rough cost of one remembered write in CPython: dict entry, key, digest and result."""


@dataclass(frozen=True)
class WriteId:
    """Who wrote, their how-manieth write, and what it said."""

    worker_id: int
    sequence: int
    digest: int


class Ledger(Generic[R]):
    """Writes of each worker, newest last. Its state depends on the order of writes alone."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._workers: dict[int, dict[int, tuple[int, R]]] = {}
        self._entries = 0

    def answer(self, write: WriteId) -> R | None:
        """The result of a repeat, None for a new write; raises SequenceConflict."""
        known = self._workers.get(write.worker_id)
        if not known:
            return None
        if write.sequence in known:
            digest, result = known[write.sequence]
            if digest != write.digest:
                raise SequenceConflict(
                    f"write {write.sequence} of worker {write.worker_id:#x} came before with another body: "
                    "a sequence number belongs to one write"
                )
            return result
        newest = max(known)
        if write.sequence <= newest - self._window:
            raise SequenceConflict(
                f"write {write.sequence} of worker {write.worker_id:#x} is more than {self._window} behind its "
                f"newest, {newest}: whether it was applied is no longer known (raise ledger_window)"
            )
        return None

    def record(self, write: WriteId, result: R) -> None:
        """Remembers a write that was applied."""
        known = self._workers.pop(write.worker_id, {})
        self._workers[write.worker_id] = known  # most recently heard worker last
        known[write.sequence] = (write.digest, result)
        self._entries += 1
        if len(known) > self._window:
            del known[min(known)]
            self._entries -= 1
        if len(self._workers) > MAX_WORKERS:
            self._entries -= len(self._workers.pop(next(iter(self._workers))))

    @property
    def nbytes(self) -> int:
        """Estimated bytes held."""
        return self._entries * ENTRY_BYTES
