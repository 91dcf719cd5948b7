"""A table: layout, tiers, initializer, optimizer and ranking put together. Called by the engine thread only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Counts, Flags, Ids, Rows, Slots
from ps.config import DEFAULT_HALF_LIFE_PUSHES, PARTITIONS, Fp16, ServiceConfig, TableConfig, TensorTrain
from ps.errors import DimensionMismatch, DiskError, DiskFull, InvalidArgument, LengthMismatch, TableNotFound
from ps.initializer import RowInitializer
from ps.kernels.index.hashing import hash_ids
from ps.kernels.ranking import score
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.optim import UpdateRule, update_rule
from ps.policy import eviction, lifting, placement
from ps.policy.admission import Gate, gate_of
from ps.policy.importance import Signals
from ps.policy.lifting import LiftGate
from ps.policy.ranking import EVERY_RANK, Ranking, ranking_bytes
from ps.storage.budget.budget import RamBudget
from ps.storage.budget.room import SLOT_BYTES
from ps.storage.budget.room import Slots as RoomOfTable
from ps.storage.disk.database import Disk
from ps.storage.overflows import Overflows
from ps.storage.ram.arena import Arena
from ps.storage.ram.device_rows import DeviceRows
from ps.storage.ram.mixed import MixedRows
from ps.storage.ram.rows import ArenaRows, Initializer, PlainRows, Updated
from ps.storage.ram.tensor_train import ColdCores, cores_of
from ps.storage.residence.store import Demotion, Store
from ps.storage.tier import Records, RowLayout, joined, where
from ps.table.beside import fixed_bytes, refusal
from ps.table.change import Change
from ps.table.lifting import Lifting
from ps.table.precision import Precision
from ps.table.push_count import ROUNDS, PushCount
from ps.tensor_train.contract import Share

log = logging.getLogger(__name__)

COUNTS_STEP_BYTES = 64 << 10
"""Of push counts that the budget gives at once."""
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
        budget: RamBudget | None = None,
        cores: ColdCores | None = None,
    ) -> None:
        """`resident_rows`: how many of so many rows belong in RAM; by default what `swap_fraction` leaves. `bounded`:
        rows may be evicted, by `max_rows_per_shard` or by `evict`. `budget`: what there is room for; None: for all that
        the host has. `cores`: of a tensor-train table, the table's from here on; None: drawn here. Raises ConfigError,
        DiskError and ResourceExhausted, and then holds no memory."""
        self._cores = cores
        try:
            self._build(config, share, disk, resident_rows, bounded, budget or RamBudget(ServiceConfig()))
        except BaseException:
            for part in ("store", "_ram", "_rows"):  # each closes those after it
                if hasattr(self, part):
                    getattr(self, part).close()
                    break
            if self._cores is not None:
                self._cores.close()
            self._let_go()
            raise

    def _build(
        self,
        config: TableConfig,
        share: Share,
        disk: Disk | None,
        resident_rows: Callable[[int], int] | None,
        bounded: bool,
        budget: RamBudget,
    ) -> None:
        self.config = config
        self._budget = budget
        self._held = self._held_counts = 0
        if isinstance(config.cold, TensorTrain) and self._cores is None:
            self._cores = cores_of(config, share, budget)
            self._cores.draw()
        self._hold(disk is not None)
        self._resident_rows = resident_rows or partial(placement.resident_rows, swap_fraction=config.swap_fraction)
        self._share = share
        self._rule = update_rule(config.optimizer, config.dim)
        self._layout = RowLayout(config.dim, self._rule.state_width)
        self._bounded = bounded or config.max_rows_per_shard is not None
        self._lucky = eviction.LUCKY_LOTS if self._bounded else 0
        # Where no row ever makes way for another there is no turnover. Rows that may be evicted, or become cold, age
        # the same with a disk and without it: else what they hold would depend on it.
        turns_over = self._bounded or disk is not None or isinstance(config.cold, Fp16)
        half_life = config.clock_half_life or (None if turns_over else DEFAULT_HALF_LIFE_PUSHES)
        self._ranking = Ranking(half_life, config.expire_after_pushes, parted=self._bounded)
        self._precision: Precision | None = None
        self._lifting: Lifting | None = None
        self._initializer: Initializer = self._cores or RowInitializer.of(config)
        self._rows: ArenaRows = _rows_of(config, self._rule, budget, self._initializer)
        self._ram = Arena(self._rows, budget)
        if isinstance(config.cold, Fp16) and isinstance(self._rows, MixedRows):
            self._precision = Precision(config.cold.hot_fraction, self._ram, self._rows, self._ranking)
        if self._rows.purpose == "rows":  # what a device has stays there
            self._ram.room.lender = self
        if isinstance(config.cold, TensorTrain):
            self._ram.room.reserved = int(lifting.MOST * config.cold.hot_rows)
        self._slice_bytes = budget.slice_bytes
        below = disk.table(config.name, self._rows.lengths) if disk else None
        as_seen = self._precision.as_seen if self._precision else list
        self.store = Store(self._ram, below, budget, self._ranking.per_tick, as_seen)
        self._signals = Signals(config.importance)
        self._gate: Gate | None = gate_of(config, int(RowInitializer.of(config).seed))
        if self._cores is not None and isinstance(config.cold, TensorTrain):
            self._gate = LiftGate(config.cold, self._ranking, self._signals.of_a_use)
            self._lifting = Lifting(
                self._cores, self._gate, self.store, self._rows, self._ranking, config.cold.fold_tolerance
            )
        self._gate_per_tick = int(score.stamps_per_tick(config.admission_half_life))
        self.closed = False
        self._ticked = False  # whether the last push has moved the clock on to another tick
        self.overflows = Overflows(config.name, self._ram)
        self._count = PushCount()
        self.pushes = 0
        """Pushes that this shard has seen. The optimizer's steps are counted by all shards alike."""
        self.rows_read = 0
        self.rows_pushed = 0
        """Ids that pushes named, whether their gradients were sent or held back."""
        self.rows_updated = 0
        self.rows_created = 0
        self.rows_refused = 0
        """Gradients dropped because their id was not admitted."""
        self.rows_in_cores = 0
        """Gradients that went to the cores of a tensor-train table."""
        self.rows_evicted = 0
        self.rows_expired = 0
        self.rows_on_time = 0
        self.rows_late = 0

    def __len__(self) -> int:
        return self._ranking.total

    def __bool__(self) -> bool:
        return True  # an empty table is a table

    @property
    def bytes_each(self) -> int:
        """Bytes that a row takes: on disk with its key and header, in RAM with all that belongs to its slot."""
        if self.has_disk:
            return self._layout.row_bytes + KEY_BYTES + HEADER_BYTES
        return self._rows.ram_bytes + SLOT_BYTES

    @property
    def layout_epoch(self) -> int:
        """Rises whenever slots found earlier may have become wrong."""
        return self._ram.layout_epoch

    def check_open(self) -> None:
        """Raises TableNotFound if the table was dropped since it was looked up: its memory is gone."""
        if self.closed:
            raise TableNotFound(f"table {self.config.name!r} was dropped while this request waited for the disk")

    @property
    def has_disk(self) -> bool:
        """Whether rows can go down."""
        return self.store.has_disk

    @property
    def room(self) -> RoomOfTable:
        """The table's part of what all tables share."""
        return self._ram.room

    # memory for others

    def free_slots(self) -> int:
        """Slots without a row; those of dropped rows are free then."""
        self.store.finish_dropping()
        return self._ram.slots_end - len(self._ram)

    def shrink(self, slots: int, rebuild: bool) -> None:
        """Gives back the memory of slots from `slots` on; rows there move."""
        self.store.shrink(slots, rebuild)
        if self._precision is not None:
            self._precision.moved()

    def check_ids(self, ids_N: Ids) -> None:
        """Raises InvalidArgument for ids that the table cannot have."""
        if self._cores is not None:
            self._cores.check(ids_N)

    def find(self, ids_N: Ids) -> Slots:
        """The slot of each id, -1 where there is no row in RAM."""
        return self.store.find(ids_N)

    def there(self, ids_N: Ids) -> Flags:
        """Which ids have a row in RAM, or perhaps on disk."""
        there_N: Flags = (self.find(ids_N) >= 0) | self.store.maybe_below(ids_N)
        return there_N

    def staying(self, ids_N: Ids) -> int:
        """How many of the ids have a row that may not leave RAM."""
        slots_N = self.find(ids_N) if self.room.reserved else np.empty(0, np.int64)
        return int(np.count_nonzero(self._ram.marks_S[slots_N[slots_N >= 0]] & np.uint16(score.STAYS)))

    def pin(self, slots_N: Slots, change: int) -> None:
        """One more (1) or one less (-1) holds these slots; what is held stays where it is."""
        score.pin(self._ram.marks_S, slots_N, change)

    def lookup(self, ids_N: Ids, slots_N: Slots, out_ND: Rows) -> None:
        """Reads values; an id without a slot reads as its initial value. Changes nothing but a counter."""
        self._rows.gather(slots_N, ids_N, out_ND)
        if self._precision is not None:
            self._precision.round(slots_N, out_ND)
        self.rows_read += len(ids_N)

    def check_reports(self, n: int, scores_N: npt.NDArray[np.float32]) -> None:
        """Raises unless these are scores for n ids of a table that takes them."""
        if not self.config.importance.external:
            raise InvalidArgument(
                f"table {self.config.name!r} gives reported scores no weight: create it with "
                "importance=Importance(external=...)"
            )
        if len(scores_N) != n:
            raise LengthMismatch(f"table {self.config.name!r}: {len(scores_N)} scores sent for {n} ids")
        if not (np.isfinite(scores_N) & (scores_N >= 0)).all():
            raise InvalidArgument(f"table {self.config.name!r}: scores must be finite and not negative")

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
        return self._create(ids_N, slots_N, np.flatnonzero(slots_N < 0))

    def create_admitted(
        self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, rows_R: Slots | None = None
    ) -> Slots:
        """As `create_missing`, for a push: only those that the table's `admission` lets in. Counts and rows_R as in
        `apply`: ids without a gradient get no row."""
        return self._create(ids_N, slots_N, self.admitted(ids_N, slots_N, counts_N, rows_R))

    def admitted(self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, rows_R: Slots | None = None) -> Slots:
        """The positions that `create_admitted` would give a row. Changes nothing."""
        missing_N = np.flatnonzero(slots_N < 0) if rows_R is None else rows_R[slots_N[rows_R] < 0]
        if self._gate is not None and len(missing_N):
            counts_M = _counts(counts_N, missing_N)
            missing_N = missing_N[self._gate.admits(ids_N[missing_N], counts_M, self.pushes + 1)]
        return missing_N

    def check_time(self) -> None:
        """Before a write: raises ResourceExhausted when the table's clock is at its end."""
        self._ranking.check_time(self.config.name)

    def undo_create(self, slots_N: Slots, created_N: Slots) -> None:
        """Takes back what `create_missing` has just done."""
        new_slots_N = slots_N[created_N]
        self._ranking.count(self._ram.statistics_S2[new_slots_N], -1)
        self._ram.release(new_slots_N)
        slots_N[created_N] = -1
        self.rows_created -= len(created_N)

    def apply(
        self,
        ids_N: Ids,
        slots_N: Slots,
        counts_N: Counts | None,
        blocks: Sequence[Rows],
        positives_N: Counts | None = None,
        rows_R: Slots | None = None,
    ) -> None:
        """What `plan_push` plans, where this table is the only one."""
        self.plan_push(ids_N, slots_N, counts_N, blocks, positives_N, rows_R).carry_out()

    def plan_push(
        self,
        ids_N: Ids,
        slots_N: Slots,
        counts_N: Counts | None,
        blocks: Sequence[Rows],
        positives_N: Counts | None = None,
        rows_R: Slots | None = None,
        worker: int = ROUNDS,
        said: int = 0,
    ) -> Change:
        """An update of rows with gradients, which adds to their importance. Ids are unique; what has no slot after
        `create_admitted` is left out, and counted as refused; or trains the cores, where there are some.

        `blocks` are the gradients of consecutive ids; `counts_N` how often each id occurs, once by default;
        `positives_N` how often in positive samples, never by default. `rows_R`: the positions of the ids that the
        gradients are of, ascending; the others are used and not updated. All by default. `worker` and what it said: of
        whose push, and which of its pushes, see `ps.table.push_count`.
        """
        refuse = self._plan_refusal(ids_N, slots_N, counts_N, blocks, rows_R)
        named = len(ids_N)
        updated_N = slots_N if rows_R is None else slots_N[rows_R]
        if (updated_N < 0).any():
            blocks = [block_ND[part_N] for part_N, block_ND in _parts(updated_N >= 0, blocks)]
            updated_N = updated_N[updated_N >= 0]
        attribution_N = self._attribution(updated_N, blocks) if self._signals.wants_attribution else None
        if rows_R is not None and attribution_N is not None:
            attribution_N = _spread(attribution_N, rows_R[slots_N[rows_R] >= 0], len(slots_N))[slots_N >= 0]
        if (slots_N < 0).any():
            has_row_N = slots_N >= 0
            counts_N = None if counts_N is None else counts_N[has_row_N]
            positives_N = None if positives_N is None else positives_N[has_row_N]
            slots_N = slots_N[has_row_N]
        added_N = self._signals.added(len(slots_N), counts_N, positives_N, attribution_N)
        parts = list(_parts(updated_N, blocks))
        outcomes: list[Updated] = []

        def update(part_N: Slots, block_ND: Rows, step: int) -> None:
            outcomes.append(self._rows.update(part_N, self._ram.ids_S, block_ND, self.pushes, step))

        def make() -> None:
            step = self._count.count(worker, said)
            self._hold_counts()
            outcomes.append(Updated(refuse(step)))
            self.pushes += 1
            self.rows_pushed += named
            tasks = [partial(self._touch, slots_N, added_N, self._signals.floor, self._lucky)]
            tasks += [partial(update, part_N, block_ND, step) for part_N, block_ND in parts]
            share = self._share if len(slots_N) >= SHARE_FROM_ROWS else one_by_one
            share(tasks)
            self.rows_updated += len(updated_N)

        return Change(
            make,
            {
                "report": lambda: self.overflows.update_ended(outcomes, updated_N),
                "promotion": partial(self._promote, slots_N),
                "clock": self._tick,
                "expiry": self._expire,
                "eviction": self._limit,
                "admission": self._tick_gates,
            },
        )

    def upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """What `plan_upsert` plans, where this table is the only one. True where a row existed."""
        return _carried_out(self.plan_upsert(ids_N, blocks))

    def plan_upsert(self, ids_N: Ids, blocks: Sequence[Rows]) -> Change:
        """Sets values, creating rows where there are none. State of rows that exist stays."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        created_N = self.create_missing(ids_N, slots_N)
        new_slots_N = slots_N[created_N]
        added_N = self._signals.added(len(new_slots_N), None, None, None)

        def make() -> None:
            self._set(slots_N, blocks)
            self._stamp(slots_N[existed_N])
            self._touch(new_slots_N, added_N, self._signals.floor, self._lucky)

        return Change(make, {"eviction": self._limit}, partial(self.undo_create, slots_N, created_N), existed_N)

    def assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> Flags:
        """What `plan_assign` plans, where this table is the only one. True where a row existed."""
        return _carried_out(self.plan_assign(ids_N, blocks))

    def plan_assign(self, ids_N: Ids, blocks: Sequence[Rows]) -> Change:
        """Sets the values of rows that exist and leaves the others out."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        self._ranking.check_time(self.config.name)
        if self._precision is not None:
            self._precision.before_update(slots_N, 0)  # by its new stamp a row would not be cut any more

        def make() -> None:
            self._set(slots_N, blocks)
            self._stamp(slots_N[existed_N])

        return Change(make, existed_N=existed_N)

    def unchanged(self, ids_N: Ids, statistics_N2: npt.NDArray[np.uint32]) -> Flags:
        """True where there is a row in RAM and its statistics are these: it was not written since it had them."""
        slots_N = self.find(ids_N)
        same_N: Flags = slots_N >= 0
        same_N[same_N] = (self._ram.statistics_S2[slots_N[same_N]] == statistics_N2[same_N]).all(axis=1)
        return same_N

    def remove(self, ids_N: Ids) -> Flags:
        """What `plan_removal` plans, where this table is the only one. True where a row existed."""
        return _carried_out(self.plan_removal(ids_N))

    def plan_removal(self, ids_N: Ids) -> Change:
        """Drops rows; they read as initial values again. Their copies on disk, if any, go now: the rows are in RAM."""
        slots_N = self.find(ids_N)
        statistics_N2 = self._ram.statistics_S2[slots_N[slots_N >= 0]]
        self.store.discard_copies(ids_N)

        def make() -> None:
            self.store.remove(ids_N)
            self._ranking.count(statistics_N2, -1)

        return Change(make, existed_N=slots_N >= 0)

    def sweep(self) -> bool:
        """Carries out a little of what was decided about the precision of rows; whether there was anything to do."""
        return self._precision is not None and self._precision.sweep()

    def plan_report(self, ids_N: Ids, scores_N: npt.NDArray[np.float32]) -> Change:
        """Adds weighted scores to rows that exist and leaves the others out."""
        slots_N = self.find(ids_N)
        existed_N = slots_N >= 0
        self._ranking.check_time(self.config.name)
        if self._precision is not None:
            self._precision.before_update(slots_N, 0)  # by its new statistics a row would not be cut any more
        added_N = self._signals.reported(scores_N[existed_N])
        return Change(partial(self._touch, slots_N[existed_N], added_N, np.float32(0), 0), existed_N=existed_N)

    def _promote(self, slots_N: Slots) -> None:
        """Rows of a push that are important now become float32."""
        if self._precision is not None:
            self._precision.touched(slots_N)

    def _tick(self) -> None:
        """A push has ended: the table's clock goes on."""
        self._ticked = self._ranking.advance()
        if self._ticked and self._precision is not None:
            self._precision.tick()

    def _tick_gates(self) -> None:
        """Who gets in until the next push, or the next tick."""
        if self._gate is not None:
            self._gate.tick(self.pushes // self._gate_per_tick)
        if self._lifting is not None:
            self._lifting.pushed()
            if self._ticked:
                self._lifting.tick()

    def _limit(self) -> None:
        if self.config.max_rows_per_shard is not None:
            self.evict(self.config.max_rows_per_shard)

    def evict(self, most: int) -> None:
        """Drops the least important rows if there are more than `most`; all of them at once, on whatever tier. No fewer
        than `eviction.LEAST` of `most` are left."""
        if len(self) <= most:
            return
        self._seal()
        cut = self._ranking.cut(most)
        self.rows_evicted += self._ranking.drop(cut)
        self.store.drop(self._ranking.now, *cut)
        if len(self) > most:
            self._evict_one_by_one(len(self) - eviction.rows_kept(most))

    def _evict_one_by_one(self, n: int) -> None:
        """Drops the n least important rows by their ids, having looked at all: the rows of one lot are more than may go
        at once. So it is where there is room for few rows, or a push brings many times what there is room for."""
        try:
            rows = list(self.store.statistics())
            ids_N = np.concatenate([part_N for part_N, _ in rows])
            statistics_N2 = np.concatenate([part_N2 for _, part_N2 in rows])
            ranks_N, order_N = np.empty(len(ids_N), np.int64), np.empty(len(ids_N), np.uint64)
            score.ranks(statistics_N2, self._ranking.per_tick, ranks_N)
            hash_ids(ids_N ^ self._ranking.now, order_N)
            chosen_N = np.lexsort((order_N, ranks_N))[:n]
            self.store.remove_all(ids_N[chosen_N])
        except (DiskError, DiskFull) as error:  # the write before it is applied, and must be answered so
            log.warning("table %s has more rows than it may until the next write: %s", self.config.name, error)
            return
        self._ranking.count(statistics_N2[chosen_N], -1)
        self.rows_evicted += len(chosen_N)

    def _seal(self) -> None:
        """Before rows are dropped: those touched later are told from those touched before."""
        if self._ranking.seal():
            if self._precision is not None:
                self._precision.tick()
            if self._lifting is not None:
                self._lifting.tick()

    def unreadable(self, ids_N: Ids) -> Ids:
        """Returns those of the ids whose rows the disk cannot give back."""
        return self.store.unreadable(ids_N)

    def plan_forget(self, ids_N: Ids) -> Change:
        """Drops rows that exist, by their ids alone: what they are is not known."""
        self.store.discard_below(ids_N)

        def make() -> None:
            self.store.remove(ids_N)
            self._ranking.forget(len(ids_N))

        return Change(make)

    def maintain(self) -> Demotion | None:
        """Begins to move some of the least important rows down, if more are in RAM than should be."""
        target = self._ram.room.resident(self._wanted_rows())
        excess = len(self._ram) - self.store.going - target
        most = placement.slice_rows(excess, len(self._ram), self._layout.row_bytes, self._slice_bytes)
        if not most:
            return None
        demotion = self.store.demote(self._ranking.quantile(target), most)
        if demotion is None and self._ram.room.bounded:
            # Rows that steps hold take the place of better ones: those must go then, or nobody would find room.
            demotion = self.store.demote(self._ranking.quantile(target - self.store.held), most)
        return demotion

    def _wanted_rows(self) -> int:
        """How many rows belong in RAM."""
        total = self._ranking.total
        if isinstance(self.config.cold, TensorTrain):
            return min(total, int(lifting.MOST * self.config.cold.hot_rows))
        return self._resident_rows(total)

    def rank_of_least(self, n: int) -> int:
        """The rank at which, and below which, the n least important rows are, and perhaps some more."""
        return self._ranking.quantile(max(len(self) - n, 0)) if n < len(self) else EVERY_RANK

    def rank_of_most(self, share: float) -> int:
        """The rank above which so large a share of the rows is, as nearly as rows of equal rank allow."""
        return self._ranking.below_most(round(share * len(self)))

    def outrank(self, slots_N: Slots, rank: int) -> Flags:
        """Which of these slots, -1 for none, hold a row of a higher rank."""
        flags_N = np.empty(len(slots_N), np.bool_)
        score.outrank(self._ram.statistics_S2, slots_N, self._ranking.per_tick, rank, flags_N)
        return flags_N

    def ranks(self, records: Records) -> npt.NDArray[np.int64]:
        """What rows are ordered by."""
        ranks_N = np.empty(len(records), np.int64)
        score.ranks(records.statistics_N2, self._ranking.per_tick, ranks_N)
        return ranks_N

    def page(self, cursor: int, n: int, highest: int = EVERY_RANK) -> tuple[Records, int]:
        """About n rows, those of the next partitions, and the next cursor, 0 at the end. Of them, the rows of rank
        `highest` and lower. Their bytes are those of a hot row."""
        found, end = self.store.page(min(cursor, PARTITIONS), n)
        nothing_NB = np.empty((0, self._layout.row_bytes), np.uint8)
        nothing = Records(np.empty(0, np.int64), nothing_NB, np.empty(0, np.float32), np.empty(0, np.uint32))
        records = joined([nothing, *(replace(part, rows_NB=self._rows.as_full(part.rows_NB)) for part in found)])
        if highest < EVERY_RANK:
            records = where(records, self.ranks(records) <= highest)
        return records, end if end < PARTITIONS else 0

    def values(self, records: Records) -> Rows:
        """float32 [n, dim]"""
        return np.ascontiguousarray(self._rows.values(records.rows_NB))

    def scores(self, records: Records) -> npt.NDArray[np.float32]:
        """Importance as of now."""
        return self._ranking.decayed(records.statistics_N2)

    @property
    def heap_bytes(self) -> int:
        """Of `memory_usage`, what is the allocator's and not in arrays that grow."""
        gate = 0 if self._gate is None else self._gate.nbytes
        ranking = ranking_bytes(self.config.expire_after_pushes)
        return gate + ranking + (0 if self._cores is None else self._cores.nbytes)

    def memory_usage(self) -> dict[str, dict[str, int]]:
        """Bytes by tier and purpose: "device_rows" of the device, all others of RAM. What cold rows have in common with
        hot ones, their index too, counts as hot."""
        admission = {} if self._gate is None else {"admission": self._gate.nbytes}
        beside = {"ranking": ranking_bytes(self.config.expire_after_pushes), "pushes": self._count.nbytes, **admission}
        cold = {"cold": {"rows": self._rows.half_bytes}} if isinstance(self._rows, MixedRows) else {}
        cores = {"tensor_train": {"cores": self._cores.nbytes}} if self._cores is not None else {}
        return {"hot": {**self.store.memory_usage(), **beside}, **cold, **cores}

    def stats(self) -> dict[str, object]:
        """Rows, bytes and counters. Only a table with a cold tier says how many rows are there."""
        return {
            "dim": self.config.dim,
            "rows": self._rows_by_tier(),
            "row_bytes": self._layout.row_bytes,
            "bytes": self.memory_usage(),
            "pushes": self.pushes,
            "steps": self._count.total,
            "rows_read": self.rows_read,
            "rows_pushed": self.rows_pushed,
            "rows_updated": self.rows_updated,
            "rows_created": self.rows_created,
            "rows_refused": self.rows_refused,
            "rows_nonfinite": self.overflows.nonfinite,
            "rows_clamped": self.overflows.clamped,
            "rows_raised": self.store.rows_raised,
            "rows_demoted": self.store.rows_demoted,
            "rows_narrowed": self._precision.rows_narrowed if self._precision else 0,
            "rows_widened": self._precision.rows_widened if self._precision else 0,
            "rows_evicted": self.rows_evicted,
            "rows_expired": self.rows_expired,
            "rows_on_time": self.rows_on_time,
            "rows_late": self.rows_late,
            "rows_in_cores": self.rows_in_cores,
            **(Lifting.NOTHING if self._lifting is None else self._lifting.stats()),
            "tensor_train": None if self._cores is None else self._cores.stats(),
            "disk": self.store.below(),
        }

    def close(self) -> None:
        """Gives the memory back; the disk is for `Disk` to close or drop."""
        self.closed = True
        self.store.close()
        if self._cores is not None:
            self._cores.close()
        self._let_go()

    def _hold(self, has_disk: bool) -> None:
        """Takes what the table has beside its rows from the budget, before it is allocated; the cores have theirs."""
        parts = fixed_bytes(self.config, has_disk)
        fixed = sum(parts.values()) - parts["cores"]
        # As much is to be left for rows. Those of their own that a table with cores has, the cores have asked for.
        self._budget.hold(fixed, 0 if self._cores else fixed, *refusal(self.config))
        self._held = fixed

    def _hold_counts(self) -> None:
        """Workers have come: what is remembered of them is the budget's too."""
        if self._count.nbytes >= self._held_counts + COUNTS_STEP_BYTES:
            self._held_counts += COUNTS_STEP_BYTES
            self._held += COUNTS_STEP_BYTES
            self._budget.hold_anyway(COUNTS_STEP_BYTES)

    def _let_go(self) -> None:
        held, self._held = self._held, 0
        self._budget.let_go(held)

    def _rows_by_tier(self) -> dict[str, int]:
        resident = min(len(self._ram), len(self))
        cold = {"cold": min(self._rows.half_rows, resident)} if isinstance(self._rows, MixedRows) else {}
        return {"hot": resident - sum(cold.values()), **cold, "disk": len(self) - resident}

    def _create(self, ids_N: Ids, slots_N: Slots, missing_N: Slots) -> Slots:
        self._ranking.check_time(self.config.name)
        if self._precision is not None:
            self._precision.before_update(slots_N, len(missing_N))
        if not len(missing_N):
            return missing_N
        new_ids_N = ids_N[missing_N]
        row_NW = np.full((len(new_ids_N), self._layout.width), self._rule.initial_state, dtype=np.float32)
        self._initializer.fill(new_ids_N, row_NW[:, : self.config.dim])
        self.store.make_room(len(new_ids_N))
        new_slots_N = self._ram.insert(new_ids_N, self._ranking.now)  # the last step that can fail
        if self._lifting is not None:
            self._lifting.lifted(new_ids_N, new_slots_N)
        self._ranking.count(self._ram.statistics_S2[new_slots_N], 1)
        self._rows.set(new_slots_N, row_NW)
        slots_N[missing_N] = new_slots_N
        self.rows_created += len(new_ids_N)
        return missing_N

    def _plan_refusal(
        self, ids_N: Ids, slots_N: Slots, counts_N: Counts | None, blocks: Sequence[Rows], rows_R: Slots | None
    ) -> Callable[[int], int]:
        """Counts the ids of a push that have no row after `create_admitted`, given its step; their gradients
        train the cores, if there are some: how many slices of those may not be finite afterwards."""
        missing_N = np.flatnonzero(slots_N < 0)
        gate, cores = self._gate, self._cores
        if gate is None or not len(missing_N):
            return lambda step: 0
        missing_ids_M, counts_M = ids_N[missing_N], _counts(counts_N, missing_N)
        sent_R = np.arange(len(ids_N)) if rows_R is None else rows_R
        without_R = slots_N[sent_R] < 0
        refused_ids_N = ids_N[sent_R[without_R]]
        grads_ND = None
        if cores is not None and len(refused_ids_N):
            grads_ND = np.concatenate([block_ND[part_R] for part_R, block_ND in _parts(without_R, blocks)])

        def refuse(step: int) -> int:
            gate.refuse(missing_ids_M, counts_M)
            if cores is None:
                self.rows_refused += len(refused_ids_N)
            elif grads_ND is not None:
                self.rows_in_cores += len(refused_ids_N)
                return cores.apply(refused_ids_N, grads_ND, step)
            return 0

        return refuse

    def _attribution(self, slots_N: Slots, blocks: Sequence[Rows]) -> npt.NDArray[np.float32]:
        """|gradient x value| by slot, before the values change."""
        out_N = np.empty(len(slots_N), np.float32)
        start = 0
        for part_N, block_ND in _parts(slots_N, blocks):
            self._rows.attribute(part_N, block_ND, out_N[start : start + len(part_N)])
            start += len(part_N)
        return out_N

    def _touch(self, slots_N: Slots, added_N: npt.NDArray[np.float32], floor: np.float32, lucky: int) -> None:
        ranking, ram = self._ranking, self._ram
        room = len(self) if self._bounded else max(self._resident_rows(len(self)), 1)
        border = ranking.quantile(room) if ranking.by_turnover and room < len(self) else -EVERY_RANK
        came = score.touch(
            ram.statistics_S2,
            ram.scores_S2,
            ram.marks_S,
            slots_N,
            added_N,
            np.uint32(ranking.now),
            ranking.per_tick,
            ranking.decay_T,
            floor,
            np.uint32(lucky),
            border,
            ranking.counts_R,
            ranking.counts_ER,
            ranking.counted_lots,
            ranking.epochs_E,
            ranking.first,
        )
        ranking.sealed = False
        ranking.turn(came, room)

    def _stamp(self, slots_N: Slots) -> None:
        """Notes that these rows were written now; they are as important as before."""
        self._touch(slots_N, np.zeros(len(slots_N), np.float32), np.float32(0), 0)

    def _expire(self) -> None:
        """Drops rows that were left alone for `expire_after_pushes`."""
        if not self._ranking.ends_epoch():
            return
        self._seal()
        kept_from, expired = self._ranking.expire()
        if expired:
            self.rows_expired += expired
            self.store.drop(kept_from, EVERY_RANK, -EVERY_RANK, np.zeros(score.LOTS, np.bool_))

    def _set(self, slots_N: Slots, blocks: Sequence[Rows]) -> None:
        for part_N, block_ND in _parts(slots_N, blocks):
            self._rows.set(part_N, block_ND)


def _rows_of(config: TableConfig, rule: UpdateRule, budget: RamBudget, initializer: Initializer) -> ArenaRows:
    """Raises ConfigError where the table's device is not to be had."""
    if config.device != "cpu":
        return DeviceRows(config, rule, budget.device)
    if isinstance(config.cold, Fp16):
        return MixedRows(config, rule, config.cold.state, budget.arrays)
    return PlainRows(config, rule, budget.arrays, initializer)


def _carried_out(change: Change) -> Flags:
    change.carry_out()
    return change.existed_N


def _spread(values_R: Rows, rows_R: Slots, n: int) -> Rows:
    """float32 [n]: the values in these positions, 0 elsewhere."""
    out_N = np.zeros(n, np.float32)
    out_N[rows_R] = values_R
    return out_N


def _counts(counts_N: Counts | None, positions_M: Slots) -> Counts:
    """How often the ids at these positions occur, once by default."""
    return np.ones(len(positions_M), np.uint32) if counts_N is None else counts_N[positions_M]


def _parts(by_slot_N: npt.NDArray[Any], blocks: Sequence[Rows]) -> Iterator[tuple[npt.NDArray[Any], Rows]]:
    """The blocks, each with what belongs to its slots."""
    start = 0
    for block_ND in blocks:
        yield by_slot_N[start : start + len(block_ND)], block_ND
        start += len(block_ND)
