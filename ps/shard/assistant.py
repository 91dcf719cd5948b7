"""A second thread for the engine: it runs half of a large update beside the other half.

The engine thread waits for it, so tables still have one owner at a time, and the parts touch disjoint rows, so the
bytes are those of one thread. Where several shards fill a host's cores it gains nothing and costs next to nothing; a
shard whose trainers wait for it has a core to spare (docs/decisions/0005-assistant.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor

from ps.tensor_train.contract import one_by_one


class Assistant:
    """One thread, used by one engine."""

    def __init__(self, pool: Executor) -> None:
        self._pool = pool
        self._pool.submit(one_by_one, []).result()  # starts the thread here, not in the middle of an update

    def share(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Runs all tasks, every other one on the assistant's thread; returns when all are done."""
        future = self._pool.submit(one_by_one, tasks[1::2])
        try:
            one_by_one(tasks[0::2])
        finally:
            error = future.exception()  # waits, also when this half has failed: nobody may write on after the return
        if error is not None:
            raise error

    def close(self) -> None:
        """Ends the thread."""
        self._pool.shutdown()
