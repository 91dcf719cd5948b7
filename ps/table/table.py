"""A table: one embedding table's rows on one shard, and the operations on them. Called by the engine thread only.

`ps.table.build` makes its parts: `reserve` and `writes` change rows, `clock` decides which rows are dropped, `cold`
decides about rows that are not hot, `store` has the rows on their tiers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids, Rows, Slots
from ps.config import PARTITIONS, ServiceConfig, TableConfig
from ps.errors import TableNotFound
from ps.kernels.ranking import score
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.policy import placement
from ps.policy.ranking import EVERY_RANK, ranking_bytes
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.slots import SLOT_BYTES
from ps.storage.disk.database import Disk
from ps.storage.residence.demotion import Demotion
from ps.storage.tier import Records, joined, where
from ps.table.build import Given, build
from ps.table.change import Change
from ps.table.cold.cores import ColdCores
from ps.table.state import TableState
from ps.tensor_train.contract import Share, one_by_one


class Table:
    """Rows of one embedding table on one shard."""

    def __init__(
        self,
        config: TableConfig,
        share: Share = one_by_one,
        disk: Disk | None = None,
        resident_rows: Callable[[int], int] | None = None,
        bounded: bool = False,
        budget: RamBudget | None = None,
        cores: ColdCores | None = None,
    ) -> None:
        """`share` runs tasks that touch disjoint rows, and returns when all are done. `resident_rows`: how many of so
        many rows belong in RAM; by default what `swap_fraction` leaves. `bounded`: rows may be evicted, by
        `max_rows_per_shard` or by `evict`. `budget`: what there is room for; None: for all that the host has. `cores`:
        of a tensor-train table, the table's from here on; None: drawn here. Raises ConfigError, DiskError and
        ResourceExhausted, and then holds no memory."""
        self.config = config
        self.created_as = config
        """What `config` was before any setting of the optimizer changed."""
        self.born = 0
        """The version of the shard that its creation made."""
        budget = budget or RamBudget(ServiceConfig())
        with ExitStack() as undo:
            parts = build(config, Given(share, disk, resident_rows, bounded, budget, cores), undo)
            self._parts = undo.pop_all()
        self.closed = False
        self._layout, self._resident_rows, self._gate = parts.layout, parts.resident_rows, parts.gate
        self._steps, self._slice_bytes = parts.steps, budget.slice_bytes
        self.store, self.ram, self.room = parts.store, parts.store.ram, parts.store.ram.room
        self.reserve, self.writes, self.clock = parts.reserve, parts.writes, parts.clock
        self.cold, self.ranking, self.counts = parts.cold, parts.ranking, parts.counts
        self.state = TableState(config.name, parts, self._rows_in_ram)
        self.has_disk = disk is not None
        """Whether rows can go to disk."""
        on_disk, in_ram = self._layout.row_bytes + KEY_BYTES + HEADER_BYTES, self.ram.rows.ram_bytes + SLOT_BYTES
        self.bytes_each = on_disk if self.has_disk else in_ram
        """Bytes that a row takes: on disk with its key and header, in RAM with everything that belongs to its slot."""

    def __len__(self) -> int:
        return self.ranking.total

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    def check_open(self) -> None:
        """Raises TableNotFound if the table was dropped since it was looked up: its memory is gone."""
        if self.closed:
            raise TableNotFound(f"table {self.config.name!r} was dropped while this request waited for the disk")

    # rows

    def find(self, ids_N: Ids) -> Slots:
        """Returns the slot of each id, -1 where there is no row in RAM."""
        return self.store.find(ids_N)

    def there(self, ids_N: Ids) -> Flags:
        """Returns which ids have a row in RAM, or perhaps on disk."""
        there_N: Flags = (self.find(ids_N) >= 0) | self.store.below.may_have(ids_N)
        return there_N

    def staying(self, ids_N: Ids) -> int:
        """Returns how many of the ids have a row that may not leave RAM."""
        slots_N = self.find(ids_N) if self.room.reserved else np.empty(0, np.int64)
        return int(np.count_nonzero(self.ram.marks_S[slots_N[slots_N >= 0]] & np.uint16(score.STAYS)))

    def lookup(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Reads values; an id without a slot reads as its initial value. Changes nothing but a counter."""
        self.ram.rows.gather(slots_N, ids_N, out_ND)
        self.cold.round(slots_N, out_ND)
        self.counts.rows_read += len(ids_N)

    def values(self, records: Records) -> Rows:
        """Returns the values of rows, [n, dim]."""
        return np.ascontiguousarray(self.ram.rows.values(records.rows_NB))

    def page(self, cursor: int, n: int, highest: int = EVERY_RANK) -> tuple[Records, int]:
        """Returns about n rows, those of the next partitions, and the next cursor, 0 at the end. Of them, the rows of
        rank `highest` and lower. Their bytes are those of a hot row."""
        found, end = self.store.pages.page(min(cursor, PARTITIONS), n)
        nothing_NB = np.empty((0, self._layout.row_bytes), np.uint8)
        nothing = Records(np.empty(0, np.int64), nothing_NB, np.empty(0, np.float32), np.empty(0, np.uint32))
        records = joined([nothing, *(replace(part, rows_NB=self.ram.rows.as_full(part.rows_NB)) for part in found)])
        if highest < EVERY_RANK:
            records = where(records, self.ranking.ranks(records.statistics_N2) <= highest)
        return records, end if end < PARTITIONS else 0

    def unchanged(self, ids_N: Ids, statistics_N2: npt.NDArray[np.uint32]) -> Flags:
        """Returns which ids have a row in RAM with exactly these statistics: it was not written since they were
        read."""
        slots_N = self.find(ids_N)
        same_N: Flags = slots_N >= 0
        same_N[same_N] = (self.ram.statistics_S2[slots_N[same_N]] == statistics_N2[same_N]).all(axis=1)
        return same_N

    # the optimizer changes

    def plan_optimizer(self, settings: Mapping[str, float], cores: bool) -> Change:
        """Plans to give the optimizer, or that of the cores, other settings, which hold for all later pushes. Raises
        ConfigError."""
        config = self.config.having_optimizer(settings, cores)
        train_cores = self.cold.plan_optimizer(config)

        def make() -> None:
            self.ram.rows.train_with(config.optimizer)
            train_cores()
            self.config = config

        return Change(make)

    # rows go

    def maintain(self) -> Demotion | None:
        """Begins to move some of the least important rows to disk, if more are in RAM than should be."""
        target = self._rows_in_ram()
        excess = len(self.ram) - self.store.going - target
        most = placement.slice_rows(excess, len(self.ram), self._layout.row_bytes, self._slice_bytes)
        if not most:
            return None
        demotion = self.store.demote(self.ranking.quantile(target), most)
        if demotion is None and self.room.bounded:
            # Rows that steps hold take the place of better ones: those must go then, or nobody would find room.
            demotion = self.store.demote(self.ranking.quantile(target - self.ram.held), most)
        return demotion

    def _rows_in_ram(self) -> int:
        """Returns how many rows the table should have in RAM now."""
        total = self.ranking.total
        wanted = self.cold.wanted_rows(total, self._resident_rows(total))
        self.room.want(wanted)
        return placement.target_rows(wanted, self.room.most(), self.room.usual, self.room.claimed)

    # numbers

    def heap_bytes(self) -> int:
        """Returns how many bytes of `memory_usage` are the allocator's, not in arrays that grow."""
        return self._gate.nbytes + ranking_bytes(self.config.expire_after_pushes) + self.cold.heap_bytes()

    def memory_usage(self) -> dict[str, dict[str, int]]:
        """Returns bytes by tier and purpose: "device_rows" of the device, all others of RAM. Memory that cold rows
        share with hot ones, such as the index, counts as hot."""
        admission = {"admission": self._gate.nbytes} if self._gate.nbytes else {}
        beside = {"ranking": ranking_bytes(self.config.expire_after_pushes), "pushes": self._steps.nbytes, **admission}
        return {"hot": {**self.store.memory_usage(), **beside}, **self.cold.memory_usage()}

    def stats(self) -> dict[str, object]:
        """Returns rows, bytes and counters. Only a table with a cold tier says how many rows are there."""
        resident = min(len(self.ram), len(self))
        cold = {tier: min(rows, resident) for tier, rows in self.cold.rows_by_tier().items()}
        return {
            "dim": self.config.dim,
            "rows": {"hot": resident - sum(cold.values()), **cold, "disk": len(self) - resident},
            "row_bytes": self._layout.row_bytes,
            "bytes": self.memory_usage(),
            "steps": self._steps.total,
            **asdict(self.counts),
            "tensor_train": self.cold.stats(),
            "disk": self.store.below.stats(self.ram.rows.lengths[0]),
        }

    def close(self) -> None:
        """Gives the memory back; the disk is for `Disk` to close or drop."""
        self.closed = True
        self._parts.close()
