"""A table: layout, tier, initializer and optimizer put together. Called by the engine thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.config import TableConfig
from ps.errors import DimensionMismatch, LengthMismatch
from ps.initializer import RowInitializer
from ps.kernels.rows import scatter
from ps.optim import update_rule
from ps.storage.hot import HotTier, Ids, Slots
from ps.storage.tier import RowLayout

Rows = npt.NDArray[np.float32]
Share = Callable[[Sequence[Callable[[], None]]], None]
"""Runs tasks that touch disjoint rows; returns when all are done."""

SHARE_FROM_ROWS = 8192
"""Smaller updates are over before another thread has woken."""


def one_by_one(tasks: Sequence[Callable[[], None]]) -> None:
    """Everything on this thread."""
    for task in tasks:
        task()


class Table:
    """Rows of one embedding table on one shard."""

    def __init__(self, config: TableConfig, share: Share = one_by_one) -> None:
        self.config = config
        self._share = share
        self._initializer = RowInitializer.of(config)
        self._rule = update_rule(config)
        self._tier = HotTier(RowLayout(config.dim, self._rule.state_width))
        self.pushes = 0
        self.rows_read = 0
        self.rows_updated = 0
        self.rows_created = 0

    def __len__(self) -> int:
        return len(self._tier)

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    @property
    def layout_epoch(self) -> int:
        """Rises whenever slots found earlier may have become wrong."""
        return self._tier.layout_epoch

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row."""
        return self._tier.find(ids_N)

    def lookup(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Reads values; an id without a row reads as its initial value. Changes nothing but a counter."""
        self._initializer.gather(self._tier.rows_SW, slots_N, ids_N, out_ND)
        self.rows_read += len(ids_N)

    def check(self, n: int, blocks: Sequence[Rows]) -> None:
        """Raises unless the blocks are gradients or values for n ids of this table."""
        for block_ND in blocks:
            if block_ND.shape[1] != self.config.dim:
                raise DimensionMismatch(
                    f"table {self.config.name!r} has dim {self.config.dim}, the rows sent have {block_ND.shape[1]}"
                )
        rows = sum(len(block_ND) for block_ND in blocks)
        if rows != n:
            raise LengthMismatch(f"table {self.config.name!r}: {rows} rows sent for {n} ids")

    def create_missing(self, ids_N: Ids, slots_N: Slots) -> Ids:
        """Creates rows with initial values where `slots_N` (as `find` gave it) is -1, and writes their slots there.

        Returns the ids created. Raises ResourceExhausted, and then nothing has changed.
        """
        missing_N = np.flatnonzero(slots_N < 0)
        new_ids_N = ids_N[missing_N]
        if not len(missing_N):
            return new_ids_N
        row_NW = np.full((len(new_ids_N), self._tier.layout.width), self._rule.initial_state, dtype=np.float32)
        self._initializer.fill(new_ids_N, row_NW[:, : self.config.dim])
        new_slots_N = self._tier.insert(new_ids_N)  # the last step that can fail
        scatter(self._tier.rows_SW, new_slots_N, row_NW)
        slots_N[missing_N] = new_slots_N
        self.rows_created += len(new_ids_N)
        return new_ids_N

    def undo_create(self, ids_N: Ids) -> None:
        """Takes back what `create_missing` has just done."""
        self._tier.discard(ids_N)
        self.rows_created -= len(ids_N)

    def apply(
        self,
        slots_N: Slots,
        counts_N: npt.NDArray[np.uint32],
        blocks: Sequence[Rows],
        push: int,
    ) -> None:
        """Updates rows with gradients and counts their frequency. Slots are unique and have rows.

        `blocks` are the gradients of consecutive slots.
        """
        self.pushes += 1
        tasks = [partial(self._tier.count, slots_N, counts_N, push)]
        for part_N, block_ND in _parts(slots_N, blocks):
            tasks.append(partial(self._rule.update, self._tier.rows_SW, part_N, block_ND, self.pushes))
        share = self._share if len(slots_N) >= SHARE_FROM_ROWS else one_by_one
        share(tasks)
        self.rows_updated += len(slots_N)

    def upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> npt.NDArray[np.bool_]:
        """Sets values, creating rows where there are none. State of rows that exist stays. True where a row existed."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        self.create_missing(ids_N, slots_N)
        self._set(slots_N, blocks)
        return existed_N

    def assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> npt.NDArray[np.bool_]:
        """Sets the values of rows that exist and leaves the others out. True where a row existed."""
        slots_N = self.find(ids_N)
        self._set(slots_N, blocks)
        return slots_N >= 0

    def remove(self, ids_N: Ids) -> npt.NDArray[np.bool_]:
        """Drops rows; they read as initial values again. True where a row existed."""
        return self._tier.discard(ids_N)

    def page(self, cursor: int, n: int) -> tuple[Ids, Rows, npt.NDArray[np.float32], int]:
        """Ids, values, scores and the next cursor (0 at the end) of the rows in the next n slots."""
        ids_N, slots_N, next_cursor = self._tier.page(cursor, n)
        values_ND = np.empty((len(ids_N), self.config.dim), dtype=np.float32)
        self._initializer.gather(self._tier.rows_SW, slots_N, ids_N, values_ND)
        return ids_N, values_ND, self._tier.frequency(slots_N).astype(np.float32), next_cursor

    def memory_usage(self) -> dict[str, dict[str, int]]:
        """Bytes by tier and purpose."""
        return {"hot": self._tier.memory_usage()}

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters."""
        return {
            "dim": self.config.dim,
            "rows": {"hot": len(self._tier)},
            "row_bytes": self._tier.layout.row_bytes,
            "bytes": self.memory_usage(),
            "pushes": self.pushes,
            "rows_read": self.rows_read,
            "rows_updated": self.rows_updated,
            "rows_created": self.rows_created,
        }

    def close(self) -> None:
        """Gives the memory back."""
        self._tier.close()

    def _set(self, slots_N: Slots, blocks: Sequence[Rows]) -> None:
        for part_N, block_ND in _parts(slots_N, blocks):
            scatter(self._tier.rows_SW, part_N, block_ND)


def _parts(slots_N: Slots, blocks: Sequence[Rows]) -> Iterator[tuple[Slots, Rows]]:
    """The blocks, each with its slots."""
    start = 0
    for block_ND in blocks:
        yield slots_N[start : start + len(block_ND)], block_ND
        start += len(block_ND)
