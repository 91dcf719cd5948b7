"""A step: ids named once, pulled and pushed by their handle."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ps.client.arrays import ArrayLike
from ps.client.batch import TableBatch
from ps.client.retry import Deadline
from ps.errors import DeadlineExceeded, LengthMismatch

if TYPE_CHECKING:
    from ps.client.client import Client


class Step:
    """What `client.prepare` returns. One pull (or several), then one push; a step that is not pushed just expires."""

    def __init__(self, client: Client, number: int, batch: list[TableBatch], prepared: dict[int, Future[bool]]) -> None:
        self._client = client
        self._number = number
        self._batch = batch
        self._preparing = prepared
        self._sequence = client.next_sequence()  # one push a step: push() again is a retry of the same push
        self._versions: dict[int, int] = {}

    def pull(self, *, timeout_s: float | None = None) -> dict[str, ArrayLike]:
        """Rows of each table: float32 [*ids.shape, dim], in the order of the ids, duplicates included."""
        deadline = self._client.deadline(timeout_s)
        pulled = self._client.exchange.pull(
            self._batch, self._client.pull_options, deadline, self._number, self._prepared(deadline)
        )
        self._versions = pulled.versions
        return {t.config.name: t.expand(rows) for t, rows in zip(self._batch, pulled.rows, strict=True)}

    def push(self, grads: Mapping[str, ArrayLike], *, timeout_s: float | None = None) -> None:
        """Applies the gradient of each row pulled; duplicates of an id are summed.

        All tables of the step, all or nothing on each shard. Calling it again after an error repeats the same push:
        shards that have applied it answer from their ledger.
        """
        names = [table.config.name for table in self._batch]
        if sorted(grads) != sorted(names):
            raise LengthMismatch(f"the step has tables {sorted(names)}, gradients were given for {sorted(grads)}")
        summed = [table.sum(grads[table.config.name]) for table in self._batch]
        deadline = self._client.deadline(timeout_s)
        self._client.exchange.push(
            self._batch,
            summed,
            self._sequence,
            deadline,
            self._client.wire_dtype,
            self._number,
            self._prepared(deadline),
            self._versions,
        )

    def _prepared(self, deadline: Deadline) -> set[int]:
        """The shards that hold the step."""
        try:
            return {shard for shard, future in self._preparing.items() if future.result(deadline.remaining_s())}
        except TimeoutError:
            raise DeadlineExceeded(f"prepare was not answered within {deadline.timeout_s:g} s") from None
