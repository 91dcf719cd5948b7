"""The ledger, which makes it safe to retry a write.

Every write carries (worker_id, sequence) and a digest of its body. A known sequence with the same digest is answered
from here and not applied again; with another digest it is an error. Room for a write is reserved before it is applied,
which may fail; that it is applied is recorded after, which may not. Per worker the last
`window` sequences are kept; one as old as those forgotten cannot be judged and is refused, never guessed at. Of a
worker that has been silent while MAX_WORKERS others wrote (fewer, where half of `max_bytes` has no room for so many)
nothing is kept: its deadline has long passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from ps.errors import InternalError, SequenceConflict
from ps.kept import KeptState, parted
from ps.shard.results import packed, unpacked

R = TypeVar("R")

MAX_WORKERS = 65_536
ENTRY_BYTES = 350
"""Bytes of one remembered write in CPython: dict entry, key, digest and result. Measured."""
WORKER_BYTES = 350
"""Bytes of a worker, whether or not any of its writes is still remembered. Measured."""
_HALF = 1 << 64
"""A digest is saved as two numbers below it."""


@dataclass(frozen=True)
class WriteId:
    """The worker that wrote, the number of the write, and a digest of its content."""

    worker_id: int
    sequence: int
    digest: int


@dataclass(slots=True)
class Entry(Generic[R]):
    """A write that is known."""

    digest: int
    result: R
    nbytes: int
    applied: bool = False


@dataclass
class _Worker(Generic[R]):
    writes: dict[int, Entry[R]] = field(default_factory=dict)
    forgotten: int = -1
    """The newest sequence that was forgotten; whether one up to it is new cannot be told."""


class Ledger(Generic[R]):
    """The writes of each worker. Its state depends only on the order of writes."""

    def __init__(self, window: int, max_bytes: int) -> None:
        self._window = window
        self._max_bytes = max_bytes
        self._max_workers = min(MAX_WORKERS, max(max_bytes // (2 * WORKER_BYTES), 1))
        self._workers: dict[int, _Worker[R]] = {}  # the one heard most recently last
        self.nbytes = 0
        """Bytes that the ledger holds, as measured for each write and worker."""

    def answer(self, write: WriteId) -> R | None:
        """Returns the result of a repeat, None for a new write. Raises SequenceConflict."""
        worker = self._workers.get(write.worker_id)
        if worker is None:
            return None
        entry = worker.writes.get(write.sequence)
        if entry is None:
            if write.sequence > worker.forgotten:
                return None
            raise SequenceConflict(
                f"write {write.sequence} of worker {write.worker_id:#x} may have been applied or not: only writes "
                f"after {worker.forgotten} are still known (raise limits.ledger_window or limits.max_ledger_bytes)"
            )
        if entry.digest != write.digest:
            raise SequenceConflict(
                f"write {write.sequence} of worker {write.worker_id:#x} came before with another body: "
                "a sequence number belongs to one write"
            )
        if not entry.applied:
            raise InternalError(f"write {write.sequence} of worker {write.worker_id:#x} is being applied")
        return entry.result

    def reserve(self, writes: Sequence[tuple[WriteId, R, int]]) -> list[Entry[R]]:
        """Reserves room for writes that are about to be applied together, with their results and the bytes of arrays
        that these hold. After an error nothing is reserved."""
        try:
            return [self._add(write, result, nbytes) for write, result, nbytes in writes]
        except BaseException:
            self.withdraw([write for write, _, _ in writes])
            raise

    def record(self, entries: Sequence[Entry[R]]) -> None:
        """Notes that the writes with these entries are applied. Allocates nothing."""
        for entry in entries:
            entry.applied = True

    def withdraw(self, writes: Sequence[WriteId]) -> None:
        """Gives back room that was reserved, or was about to be, because nothing was applied."""
        for write in writes:
            self._withdraw(write)

    def state(self) -> KeptState:
        """See `ps.kept`. All writes are applied, and their results are those of `ps.shard.results`."""
        workers = list(self._workers.values())
        entries: list[Entry[Any]] = [entry for worker in workers for entry in worker.writes.values()]
        numbers = {
            "ids": list(self._workers),
            "forgotten": [max(worker.forgotten, 0) for worker in workers],
            "sequences": [sequence for worker in workers for sequence in worker.writes],
            "digests": [half for entry in entries for half in divmod(entry.digest, _HALF)],
        }
        return {
            **{f"workers.{name}": np.array(values, np.uint64) for name, values in numbers.items()},
            "workers.forgot": np.array([worker.forgotten >= 0 for worker in workers], np.bool_),
            "workers.writes": np.array([len(worker.writes) for worker in workers], np.int64),
            **{f"workers.results.{name}": array for name, array in packed([e.result for e in entries]).items()},
        }

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`. What this ledger has no room for is forgotten, as it would be if the writes came to it."""
        saved = parted(state)["workers"]
        digests = [high * _HALF + low for high, low in saved["digests"].reshape(-1, 2).tolist()]
        results: list[Any] = unpacked(parted(saved)["results"])
        writes = iter(zip(saved["sequences"].tolist(), digests, results, strict=True))
        columns = (saved[name].tolist() for name in ("ids", "forgot", "forgotten", "writes"))
        for worker_id, forgot, forgotten, n in zip(*columns, strict=True):
            worker = self._workers[worker_id] = _Worker(forgotten=forgotten if forgot else -1)
            for sequence, digest, result in islice(writes, n):
                worker.writes[sequence] = Entry(digest, result, result.nbytes + ENTRY_BYTES, applied=True)
            self.nbytes += WORKER_BYTES + sum(entry.nbytes for entry in worker.writes.values())
            self._bound(worker)

    def _add(self, write: WriteId, result: R, nbytes: int) -> Entry[R]:
        worker = self._workers.pop(write.worker_id, None)
        if worker is None:
            worker = _Worker()
            self.nbytes += WORKER_BYTES
        self._workers[write.worker_id] = worker
        entry = worker.writes[write.sequence] = Entry(write.digest, result, nbytes + ENTRY_BYTES)
        self.nbytes += nbytes + ENTRY_BYTES
        self._bound(worker)
        return entry

    def _bound(self, last: _Worker[R]) -> None:
        """Forgets what there is no room for after writes of the worker that is the last now."""
        while len(last.writes) > self._window:
            self._forget_oldest(last)
        while len(self._workers) > self._max_workers:
            silent = self._workers.pop(next(iter(self._workers)))
            self.nbytes -= WORKER_BYTES + sum(entry.nbytes for entry in silent.writes.values())
        if self.nbytes > self._max_bytes:
            self._shrink(last)

    def _withdraw(self, write: WriteId) -> None:
        worker = self._workers.get(write.worker_id)
        if worker is None:
            return
        entry = worker.writes.pop(write.sequence, None)
        self.nbytes -= 0 if entry is None else entry.nbytes
        if not worker.writes and worker.forgotten < 0:  # it came with this write
            del self._workers[write.worker_id]
            self.nbytes -= WORKER_BYTES

    def _shrink(self, last: _Worker[R]) -> None:
        """Forgets writes of the workers that were silent longest, but never the one just recorded."""
        for worker in self._workers.values():
            while len(worker.writes) > (worker is last):
                self._forget_oldest(worker)
                if self.nbytes <= self._max_bytes:
                    return

    def _forget_oldest(self, worker: _Worker[R]) -> None:
        sequence = min(worker.writes)
        self.nbytes -= worker.writes.pop(sequence).nbytes
        worker.forgotten = max(worker.forgotten, sequence)
