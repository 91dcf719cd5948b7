"""A table: layout, tiers, initializer, optimizer and ranking put together. Called by the engine thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.config import PARTITIONS, TableConfig
from ps.errors import DimensionMismatch, LengthMismatch
from ps.initializer import RowInitializer
from ps.kernels import score
from ps.optim import update_rule
from ps.policy import placement
from ps.policy.ranking import Ranking
from ps.precision import Precision
from ps.storage.arena import Arena
from ps.storage.disk import Disk
from ps.storage.mixed_rows import MixedRows
from ps.storage.rows import PlainRows, Slots
from ps.storage.store import Demotion, Store
from ps.storage.tier import Flags, Ids, Records, RowLayout

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

    def __init__(
        self,
        config: TableConfig,
        share: Share = one_by_one,
        disk: Disk | None = None,
        resident_rows: Callable[[int], int] | None = None,
    ) -> None:
        """`resident_rows`: how many of so many rows belong in RAM; by default what `swap_fraction` leaves."""
        self.config = config
        self._resident_rows = resident_rows or partial(placement.resident_rows, swap_fraction=config.swap_fraction)
        self._share = share
        self._initializer = RowInitializer.of(config)
        self._rule = update_rule(config)
        self._layout = RowLayout(config.dim, self._rule.state_width)
        self._ranking = Ranking(config.half_life_pushes)
        if config.cold == "none":
            self._rows: PlainRows | MixedRows = PlainRows(config, self._rule)
            self._ram = Arena(self._rows)
            self._precision = None
        else:
            self._rows = MixedRows(config, self._rule)
            self._ram = Arena(self._rows)
            self._precision = Precision(config.hot_fraction, self._ram, self._rows, self._ranking)
        self.store = Store(
            self._ram,
            disk.table(config.name, self._rows.lengths) if disk else None,
            self._precision.as_seen if self._precision else list,
        )
        self.pushes = 0
        self.rows_read = 0
        self.rows_updated = 0
        self.rows_created = 0

    def __len__(self) -> int:
        return self._ranking.total

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    @property
    def layout_epoch(self) -> int:
        """Rises whenever slots found earlier may have become wrong."""
        return self._ram.layout_epoch

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row in RAM."""
        return self._ram.find(ids_N)

    def pin(self, slots_N: Slots, change: int) -> None:
        """One more (1) or one less (-1) holds these slots; what is held stays where it is."""
        score.pin(self._ram.marks_S, slots_N, change)

    def lookup(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Reads values; an id without a slot reads as its initial value. Changes nothing but a counter."""
        self._rows.gather(slots_N, ids_N, out_ND)
        if self._precision is not None:
            self._precision.round(slots_N, out_ND)
        self.rows_read += len(ids_N)

    def values(self, records: Records) -> Rows:
        """Values of rows that are not in RAM."""
        return self._rows.values(records.rows_NB)

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

    def create_missing(self, ids_N: Ids, slots_N: Slots) -> Slots:
        """Creates rows with initial values where `slots_N` (as `find` gave it) is -1, and writes their slots there.

        Those that have a row are made ready for `apply`. None of them may be on disk. Returns the positions created.
        Raises ResourceExhausted, and then nothing has changed.
        """
        missing_N = np.flatnonzero(slots_N < 0)
        if self._precision is not None:
            self._precision.before_update(slots_N, len(missing_N))
        if not len(missing_N):
            return missing_N
        new_ids_N = ids_N[missing_N]
        row_NW = np.full((len(new_ids_N), self._layout.width), self._rule.initial_state, dtype=np.float32)
        self._initializer.fill(new_ids_N, row_NW[:, : self.config.dim])
        new_slots_N = self._ram.insert(new_ids_N, self._ranking.now)  # the last step that can fail
        self._ranking.count(self._ram.statistics_S2[new_slots_N], 1)
        self._rows.set(new_slots_N, row_NW)
        slots_N[missing_N] = new_slots_N
        self.rows_created += len(new_ids_N)
        return missing_N

    def undo_create(self, slots_N: Slots, created_N: Slots) -> None:
        """Takes back what `create_missing` has just done."""
        new_slots_N = slots_N[created_N]
        self._ranking.count(self._ram.statistics_S2[new_slots_N], -1)
        self._ram.release(new_slots_N)
        slots_N[created_N] = -1
        self.rows_created -= len(created_N)

    def apply(
        self,
        slots_N: Slots,
        counts_N: npt.NDArray[np.uint32],
        blocks: Sequence[Rows],
    ) -> None:
        """Updates rows with gradients and counts how often they occur. Slots are unique and have rows.

        `blocks` are the gradients of consecutive slots.
        """
        self.pushes += 1
        tasks = [partial(self._touch, slots_N, counts_N.astype(np.float32))]
        for part_N, block_ND in _parts(slots_N, blocks):
            tasks.append(partial(self._rows.update, part_N, self._ram.ids_S, block_ND, self.pushes))
        share = self._share if len(slots_N) >= SHARE_FROM_ROWS else one_by_one
        share(tasks)
        self.rows_updated += len(slots_N)
        if self._precision is not None:
            self._precision.touched(slots_N)
        if self._ranking.pushed() and self._precision is not None:
            self._precision.tick()

    def upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """Sets values, creating rows where there are none. State of rows that exist stays. True where a row existed."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        self.create_missing(ids_N, slots_N)
        self._set(slots_N, blocks)
        return existed_N

    def assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """Sets the values of rows that exist and leaves the others out. True where a row existed."""
        slots_N = self.find(ids_N)
        self._set(slots_N, blocks)
        return slots_N >= 0

    def remove(self, ids_N: Ids) -> Flags:
        """Drops rows; they read as initial values again. True where a row existed."""
        slots_N = self.find(ids_N)
        statistics_N2 = self._ram.statistics_S2[slots_N[slots_N >= 0]]
        existed_N = self.store.remove(ids_N)
        self._ranking.count(statistics_N2, -1)
        return existed_N

    def sweep(self) -> bool:
        """Carries out a little of what was decided about the precision of rows; whether there was anything to do."""
        return self._precision is not None and self._precision.sweep()

    def maintain(self) -> Demotion | None:
        """Begins to move some of the least important rows down, if more are in RAM than should be."""
        target = self._resident_rows(self._ranking.total)
        excess = len(self._ram) - self.store.going - target
        most = placement.slice_rows(excess, len(self._ram), self._layout.row_bytes)
        return self.store.demote(self._ranking.quantile(target), most) if most else None

    def page(self, cursor: int, n: int) -> tuple[Ids, Rows, npt.NDArray[np.float32], int]:
        """Ids, values, scores and the next cursor (0 at the end) of about n rows: those of the next partitions."""
        found, end = self.store.page(min(cursor, PARTITIONS), n)
        nothing_ND = np.empty((0, self.config.dim), np.float32)
        ids_N = np.concatenate([np.empty(0, np.int64), *(records.ids_N for records in found)])
        values_ND = np.concatenate([nothing_ND, *map(self.values, found)])
        decayed = [self._ranking.decayed(records.scores_N, records.stamps_N) for records in found]
        return ids_N, values_ND, np.concatenate([nothing_ND[:, 0], *decayed]), end if end < PARTITIONS else 0

    def memory_usage(self) -> dict[str, dict[str, int]]:
        """Bytes by tier and purpose. What cold rows have in common with hot ones, their index too, counts as hot."""
        usage = {"hot": self.store.memory_usage()}
        if isinstance(self._rows, MixedRows):
            usage["cold"] = {"rows": self._rows.half_bytes}
        return usage

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters. Only a table with a cold tier says how many rows are there."""
        return {
            "dim": self.config.dim,
            "rows": self._rows_by_tier(),
            "row_bytes": self._layout.row_bytes,
            "bytes": self.memory_usage(),
            "pushes": self.pushes,
            "rows_read": self.rows_read,
            "rows_updated": self.rows_updated,
            "rows_created": self.rows_created,
            "rows_raised": self.store.rows_raised,
            "rows_demoted": self.store.rows_demoted,
            "rows_narrowed": self._precision.rows_narrowed if self._precision else 0,
            "rows_widened": self._precision.rows_widened if self._precision else 0,
        }

    def close(self) -> None:
        """Gives the memory back."""
        self.store.close()

    def _rows_by_tier(self) -> dict[str, int]:
        cold = {"cold": self._rows.half_rows} if isinstance(self._rows, MixedRows) else {}
        return {"hot": len(self._ram) - sum(cold.values()), **cold, "disk": len(self) - len(self._ram)}

    def _touch(self, slots_N: Slots, added_N: npt.NDArray[np.float32]) -> None:
        ranking, ram = self._ranking, self._ram
        score.touch(
            ram.statistics_S2,
            ram.scores_S2,
            ram.marks_S,
            slots_N,
            added_N,
            np.uint32(ranking.now),
            ranking.decay_T,
            ranking.counts_R,
            ranking.first,
        )

    def _set(self, slots_N: Slots, blocks: Sequence[Rows]) -> None:
        for part_N, block_ND in _parts(slots_N, blocks):
            self._rows.set(part_N, block_ND)
        score.mark(self._ram.marks_S, slots_N, score.DIRTY, 0)


def _parts(slots_N: Slots, blocks: Sequence[Rows]) -> Iterator[tuple[Slots, Rows]]:
    """The blocks, each with its slots."""
    start = 0
    for block_ND in blocks:
        yield slots_N[start : start + len(block_ND)], block_ND
        start += len(block_ND)
