"""A table: layout, tiers, initializer, optimizer and ranking put together. Called by the engine thread only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from ps.config import PARTITIONS, TableConfig
from ps.errors import DimensionMismatch, LengthMismatch, TableNotFound
from ps.initializer import RowInitializer
from ps.kernels import score
from ps.kernels.records import HEADER_BYTES, KEY_BYTES
from ps.kernels.rows import scatter
from ps.optim import update_rule
from ps.policy import eviction, placement
from ps.policy.ranking import EVERY_RANK, Ranking
from ps.storage.arena import Arena, Slots
from ps.storage.disk import Disk
from ps.storage.store import Demotion, Store
from ps.storage.tier import Flags, Ids, Records, RowLayout, joined, where

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
        bounded: bool = False,
    ) -> None:
        """`resident_rows`: how many of so many rows belong in RAM; by default what `swap_fraction` leaves. `bounded`:
        rows may be evicted, by `max_rows_per_shard` or by `evict`."""
        self.config = config
        self._resident_rows = resident_rows or partial(placement.resident_rows, swap_fraction=config.swap_fraction)
        self._share = share
        self._initializer = RowInitializer.of(config)
        self._rule = update_rule(config)
        self._layout = RowLayout(config.dim, self._rule.state_width)
        self._ram = Arena(self._layout.width, np.float32)
        self.store = Store(self._ram, disk.table(config.name, [self._layout.row_bytes]) if disk else None)
        self._ranking = Ranking(config.half_life_pushes, config.expire_after_pushes)
        self._bounded = bounded or config.max_rows_per_shard is not None
        self.closed = False
        self.pushes = 0
        self.rows_read = 0
        self.rows_updated = 0
        self.rows_created = 0
        self.rows_evicted = 0
        self.rows_expired = 0
        self.rows_late = 0

    def __len__(self) -> int:
        return self._ranking.total

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    @property
    def record_bytes(self) -> int:
        """Bytes of a row with its key and header, as it lies on disk."""
        return self._layout.row_bytes + KEY_BYTES + HEADER_BYTES

    @property
    def layout_epoch(self) -> int:
        """Rises whenever slots found earlier may have become wrong."""
        return self._ram.layout_epoch

    def check_open(self) -> None:
        """Raises TableNotFound if the table was dropped since it was looked up: its memory is gone."""
        if self.closed:
            raise TableNotFound(f"table {self.config.name!r} was dropped while this request waited for the disk")

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row in RAM."""
        return self.store.find(ids_N)

    def pin(self, slots_N: Slots, change: int) -> None:
        """One more (1) or one less (-1) holds these slots; what is held stays where it is."""
        score.pin(self._ram.marks_S, slots_N, change)

    def lookup(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Reads values; an id without a slot reads as its initial value. Changes nothing but a counter."""
        self._initializer.gather(self._ram.rows_SW, slots_N, ids_N, out_ND)
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

    def create_missing(self, ids_N: Ids, slots_N: Slots) -> Slots:
        """Creates rows with initial values where `slots_N` (as `find` gave it) is -1, and writes their slots there.

        None of them may be on disk. Returns the positions created. Raises ResourceExhausted, and then nothing has
        changed.
        """
        missing_N = np.flatnonzero(slots_N < 0)
        if not len(missing_N):
            return missing_N
        new_ids_N = ids_N[missing_N]
        row_NW = np.full((len(new_ids_N), self._layout.width), self._rule.initial_state, dtype=np.float32)
        self._initializer.fill(new_ids_N, row_NW[:, : self.config.dim])
        self.store.make_room(len(new_ids_N))
        new_slots_N = self._ram.insert(new_ids_N, self._ranking.now)  # the last step that can fail
        self._ranking.count(self._ram.statistics_S2[new_slots_N], 1)
        scatter(self._ram.rows_SW, new_slots_N, row_NW)
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
        tasks = [partial(self._touch, slots_N, self._added(slots_N, counts_N))]
        for part_N, block_ND in _parts(slots_N, blocks):
            tasks.append(partial(self._rule.update, self._ram.rows_SW, part_N, block_ND, self.pushes))
        share = self._share if len(slots_N) >= SHARE_FROM_ROWS else one_by_one
        share(tasks)
        self.rows_updated += len(slots_N)
        self._ranking.pushed()
        self._expire()
        self._limit()

    def upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """Sets values, creating rows where there are none. State of rows that exist stays. True where a row existed."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        created_N = self.create_missing(ids_N, slots_N)
        self._set(slots_N, blocks)
        self._touch(slots_N[created_N], self._added(slots_N[created_N], np.ones(len(created_N), np.uint32)))
        self._limit()
        return existed_N

    def assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """Sets the values of rows that exist and leaves the others out. True where a row existed."""
        slots_N = self.find(ids_N)
        self._set(slots_N, blocks)
        return slots_N >= 0

    def unchanged(self, ids_N: Ids, statistics_N2: npt.NDArray[np.uint32]) -> Flags:
        """True where there is a row in RAM and its statistics are these."""
        slots_N = self.find(ids_N)
        same_N: Flags = (self._ram.statistics_S2[slots_N] == statistics_N2).all(axis=1)
        return same_N & (slots_N >= 0)

    def remove(self, ids_N: Ids) -> Flags:
        """Drops rows; they read as initial values again. True where a row existed."""
        slots_N = self.find(ids_N)
        statistics_N2 = self._ram.statistics_S2[slots_N[slots_N >= 0]]
        existed_N = self.store.remove(ids_N)
        self._ranking.count(statistics_N2, -1)
        return existed_N

    def _limit(self) -> None:
        if self.config.max_rows_per_shard is not None:
            self.evict(self.config.max_rows_per_shard)

    def evict(self, most: int) -> None:
        """Drops the least important rows if there are more than `most`; all of them at once, on whatever tier."""
        if len(self) > most:
            keep = eviction.rows_kept(len(self), most)
            highest = self._ranking.highest_of_others(keep, most)
            self._ranking.tick()
            self.rows_evicted += self._ranking.drop(highest)
            self.store.drop(self._ranking.now, highest)

    def forget(self, ids_N: Ids) -> Ids:
        """Drops those of the rows that the disk cannot give back; their ids."""
        lost_N = self.store.forget(ids_N)
        self._ranking.forget(len(lost_N))
        return lost_N

    def maintain(self) -> Demotion | None:
        """Begins to move some of the least important rows down, if more are in RAM than should be."""
        target = self._resident_rows(self._ranking.total)
        excess = len(self._ram) - self.store.going - target
        most = placement.slice_rows(excess, len(self._ram), self._layout.row_bytes)
        return self.store.demote(self._ranking.quantile(target), most) if most else None

    def rank_of_least(self, n: int) -> int:
        """The rank at which, and below which, the n least important rows are, and perhaps some more."""
        return self._ranking.quantile(max(len(self) - n, 0)) if n < len(self) else EVERY_RANK

    def page(self, cursor: int, n: int, highest: int = EVERY_RANK) -> tuple[Records, int]:
        """About n rows, those of the next partitions, and the next cursor, 0 at the end. Of them, the rows of rank
        `highest` and lower. Their bytes are those of a hot row."""
        found, end = self.store.page(min(cursor, PARTITIONS), n)
        records = joined(found)
        if highest < EVERY_RANK:
            ranks_N = np.empty(len(records), np.int64)
            score.ranks(records.statistics_N2, ranks_N)
            records = where(records, ranks_N <= highest)
        return records, end if end < PARTITIONS else 0

    def values(self, records: Records) -> Rows:
        """float32 [n, dim]"""
        return np.ascontiguousarray(records.rows_NB.view(np.float32)[:, : self.config.dim])

    def scores(self, records: Records) -> npt.NDArray[np.float32]:
        """Importance as of now."""
        return self._ranking.decayed(records.scores_N, records.stamps_N)

    def memory_usage(self) -> dict[str, dict[str, int]]:
        """Bytes by tier and purpose."""
        return {"hot": self.store.memory_usage()}

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters."""
        return {
            "dim": self.config.dim,
            "rows": {"hot": min(len(self._ram), len(self)), "disk": max(len(self) - len(self._ram), 0)},
            "row_bytes": self._layout.row_bytes,
            "bytes": self.memory_usage(),
            "pushes": self.pushes,
            "rows_read": self.rows_read,
            "rows_updated": self.rows_updated,
            "rows_created": self.rows_created,
            "rows_raised": self.store.rows_raised,
            "rows_demoted": self.store.rows_demoted,
            "rows_evicted": self.rows_evicted,
            "rows_expired": self.rows_expired,
            "rows_late": self.rows_late,
            "disk": self.store.below(),
        }

    def close(self) -> None:
        """Gives the memory back; the disk is for `Disk` to close or drop."""
        self.closed = True
        self.store.close()

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
            ranking.counts_ER,
            ranking.epochs_E,
            ranking.first,
        )

    def _added(self, slots_N: Slots, counts_N: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """What a push adds to the scores of its rows."""
        added_N = counts_N.astype(np.float32)
        return added_N * eviction.spread(self._ram.ids_S[slots_N]) if self._bounded else added_N

    def _expire(self) -> None:
        """Drops rows that were left alone for `expire_after_pushes`."""
        kept_from, expired = self._ranking.expire()
        if expired:
            self.rows_expired += expired
            self.store.drop(kept_from, EVERY_RANK)

    def _set(self, slots_N: Slots, blocks: Sequence[Rows]) -> None:
        for part_N, block_ND in _parts(slots_N, blocks):
            scatter(self._ram.rows_SW, part_N, block_ND)
        score.mark(self._ram.marks_S, slots_N, score.DIRTY, 0)


def _parts(slots_N: Slots, blocks: Sequence[Rows]) -> Iterator[tuple[Slots, Rows]]:
    """The blocks, each with its slots."""
    start = 0
    for block_ND in blocks:
        yield slots_N[start : start + len(block_ND)], block_ND
        start += len(block_ND)
