"""Counts a table's pushes in the same way on every shard, for Adam's bias correction.

A push goes to the shards that have an id of it, so none of them sees all. So each push says how many pushes of the
table its trainer has made; a shard keeps the largest number of each trainer, and the sum over the trainers is the
count. It is exact for one trainer, on any number of shards. With several trainers, a shard knows of each what that
trainer's last push to this shard said. A round goes to every shard, so each counts rounds by itself.

The count is a function of the writes in their order. Used by the engine thread.
"""

from __future__ import annotations

import numpy as np

from ps.errors import InvalidArgument
from ps.kept import KeptState

ROUNDS = -1
"""Stands in place of a worker for the rounds of all groups."""
MAX_SAID = 1 << 53
MAX_WORKERS = 16_384
"""How many workers are told apart. Of one that was silent for longer than so many others only the sum remains."""
WORKER_BYTES = 80
"""Bytes that one worker takes in CPython, measured."""


class PushCount:
    """Counts the pushes of one table."""

    def __init__(self) -> None:
        self._of_worker: dict[int, int] = {}  # the one heard most recently last
        self._total = 0

    @property
    def total(self) -> int:
        """The pushes of all workers, as far as they are known."""
        return self._total

    @property
    def nbytes(self) -> int:
        """Bytes that the counts take."""
        return len(self._of_worker) * WORKER_BYTES

    def count(self, worker: int, said: int) -> int:
        """Counts one more push of this worker, which says that it has made `said` pushes; 0: it does not say. Returns
        the total."""
        before = self._of_worker.pop(worker, 0)
        now = max(before, said) if said else before + 1
        self._of_worker[worker] = now
        self._total += now - before
        if len(self._of_worker) > MAX_WORKERS:
            del self._of_worker[next(iter(self._of_worker))]
        return self._total

    def reach(self, total: int) -> None:
        """Notes that there were at least so many pushes before, of workers that nobody knows any more."""
        self._total = max(self._total, total)

    def state(self) -> KeptState:
        """See `ps.kept`. Workers are in their order; ROUNDS is no uint64, so it has its place told."""
        workers = list(self._of_worker)
        return {
            "of_worker.ids": np.array([max(worker, 0) for worker in workers], np.uint64),
            "of_worker.rounds_at": workers.index(ROUNDS) if ROUNDS in self._of_worker else None,
            "of_worker.counts": np.array(list(self._of_worker.values()), np.int64),
            "total": self._total,
        }

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        workers = state["of_worker.ids"].tolist()
        if state["of_worker.rounds_at"] is not None:
            workers[state["of_worker.rounds_at"]] = ROUNDS
        self._of_worker = dict(zip(workers, state["of_worker.counts"].tolist(), strict=True))
        self._total = state["total"]


def check_said(table: str, said: int) -> None:
    """Raises InvalidArgument for a number of pushes that no trainer can have made."""
    if said > MAX_SAID:
        raise InvalidArgument(f"table {table!r}: a push is number {said:,} of its worker: the most is {MAX_SAID:,}")
