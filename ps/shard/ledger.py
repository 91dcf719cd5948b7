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


@dataclass(frozen=True)
class _Entry(Generic[R]):
    digest: int
    result: R
    nbytes: int


class Ledger(Generic[R]):
    """Writes of each worker, newest last. Its state depends on the order of writes alone."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._workers: dict[int, dict[int, _Entry[R]]] = {}
        self.nbytes = 0
        """Estimated bytes held."""

    def answer(self, write: WriteId) -> R | None:
        """The result of a repeat, None for a new write; raises SequenceConflict."""
        known = self._workers.get(write.worker_id)
        if not known:
            return None
        if write.sequence in known:
            entry = known[write.sequence]
            if entry.digest != write.digest:
                raise SequenceConflict(
                    f"write {write.sequence} of worker {write.worker_id:#x} came before with another body: "
                    "a sequence number belongs to one write"
                )
            return entry.result
        newest = max(known)
        if write.sequence <= newest - self._window:
            raise SequenceConflict(
                f"write {write.sequence} of worker {write.worker_id:#x} is more than {self._window} behind its "
                f"newest, {newest}: whether it was applied is no longer known (raise ledger_window)"
            )
        return None

    def record(self, write: WriteId, result: R, nbytes: int = 0) -> None:
        """Remembers a write that was applied, and that its result holds so many bytes of arrays."""
        known = self._workers.pop(write.worker_id, {})
        self._workers[write.worker_id] = known  # most recently heard worker last
        known[write.sequence] = _Entry(write.digest, result, nbytes + ENTRY_BYTES)
        self.nbytes += nbytes + ENTRY_BYTES
        if len(known) > self._window:
            self.nbytes -= known.pop(min(known)).nbytes
        if len(self._workers) > MAX_WORKERS:
            forgotten = self._workers.pop(next(iter(self._workers)))
            self.nbytes -= sum(entry.nbytes for entry in forgotten.values())
