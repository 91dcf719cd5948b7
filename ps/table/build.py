"""Makes the parts of a table from its configuration: layout, tiers, initializer, optimizer, ranking and cold tier."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from ps.config import DEFAULT_HALF_LIFE_PUSHES, Fp16, TableConfig, TensorTrain
from ps.initializer import RowInitializer
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.policy import placement
from ps.policy.admission import Gate, gate_of
from ps.policy.importance import Signals
from ps.policy.lifting import LiftGate
from ps.policy.ranking import Ranking
from ps.storage.budget.budget import RamBudget
from ps.storage.disk.database import Disk
from ps.storage.ram.arena import Arena
from ps.storage.ram.device_rows import DeviceRows
from ps.storage.ram.mixed import MixedRows
from ps.storage.ram.rows import ArenaRows, Initializer, PlainRows
from ps.storage.residence.dropped import Dropped
from ps.storage.residence.store import Store
from ps.storage.tier import RowLayout
from ps.table.beside import Beside
from ps.table.clock import Clock
from ps.table.cold.cold import Cold
from ps.table.cold.cores import ColdCores, cores_of
from ps.table.cold.fp16 import Fp16Cold
from ps.table.cold.tensor_train import TensorTrainCold
from ps.table.counters import Counters
from ps.table.push_count import PushCount
from ps.table.reserve import Reserve
from ps.table.write import Writes
from ps.tensor_train.contract import Share


@dataclass(frozen=True)
class Given:
    """What a table is made with beside its configuration; `Table` explains it."""

    share: Share
    disk: Disk | None
    resident_rows: Callable[[int], int] | None
    bounded: bool
    budget: RamBudget
    cores: ColdCores | None


@dataclass(frozen=True)
class Parts:
    """The parts of one table."""

    layout: RowLayout
    resident_rows: Callable[[int], int]
    ranking: Ranking
    gate: Gate
    cold: Cold
    store: Store
    clock: Clock
    reserve: Reserve
    writes: Writes
    counts: Counters
    steps: PushCount
    beside: Beside


def build(config: TableConfig, given: Given, undo: ExitStack) -> Parts:
    """Returns the parts of a table. `undo` gets what closes them, also where this raises ConfigError, DiskError or
    ResourceExhausted."""
    budget, counts, steps = given.budget, Counters(), PushCount()
    cores = _cores(config, given, undo)
    beside = Beside(config, given.disk is not None, budget)
    undo.callback(beside.close)
    resident_rows = given.resident_rows or partial(placement.resident_rows, swap_fraction=config.swap_fraction)
    bounded = given.bounded or config.max_rows_per_shard is not None
    rule = update_rule(config.optimizer, config.dim)
    layout = RowLayout(config.dim, rule.state_width)
    ranking = Ranking(_half_life(config, given, bounded), config.expire_after_pushes, parted=bounded)
    signals = Signals(config.importance)
    own_values = RowInitializer.of(config)
    initializer: Initializer = cores or own_values
    ram = _arena(rows_of(config, rule, budget, initializer), budget, undo)
    dropped = Dropped(ram, ranking.per_tick)
    gate = gate_of(config, int(own_values.seed))
    cold = Cold(counts)
    if isinstance(config.cold, TensorTrain) and cores is not None:
        gate = lift_gate = LiftGate(config.cold, ranking, signals.of_a_use)
        cold = TensorTrainCold(config.cold, cores, lift_gate, ram, ranking, dropped, counts)
    elif isinstance(config.cold, Fp16) and isinstance(ram.rows, MixedRows):
        cold = Fp16Cold(config.cold.hot_fraction, ram, ram.rows, ranking, counts)
    below = given.disk.table(config.name, ram.rows.lengths) if given.disk else None
    store = Store(ram, below, budget, dropped, ranking.per_tick, cold, counts)
    undo.callback(store.close)
    ram.room.reserve(cold.reserved)
    if ram.rows.purpose == "rows":  # what a device has stays there
        ram.room.lender = store
    clock = Clock(config, bounded, resident_rows, ranking, signals, gate, cold, store, counts)
    reserve = Reserve(layout, rule.initial_state, initializer, store, cold, gate, ranking, clock, counts)
    writes = Writes(config, reserve, store, cold, gate, signals, ranking, clock, counts, steps, beside, given.share)
    return Parts(layout, resident_rows, ranking, gate, cold, store, clock, reserve, writes, counts, steps, beside)


def _cores(config: TableConfig, given: Given, undo: ExitStack) -> ColdCores | None:
    """Returns the cores of a tensor-train table, drawn here unless they are given."""
    cores = given.cores
    if cores is None and isinstance(config.cold, TensorTrain):
        cores = cores_of(config, given.share, given.budget)
        undo.callback(cores.close)
        cores.draw()
    elif cores is not None:
        undo.callback(cores.close)
    return cores


def _half_life(config: TableConfig, given: Given, bounded: bool) -> int | None:
    """Returns how many pushes a score takes to be half as much; None: by turnover.

    If no row ever makes way for another there is no turnover. Rows that may be evicted, or become cold, age the same
    with a disk and without one, because their values would depend on it otherwise.
    """
    turns_over = bounded or given.disk is not None or isinstance(config.cold, Fp16)
    return config.clock_half_life or (None if turns_over else DEFAULT_HALF_LIFE_PUSHES)


def rows_of(config: TableConfig, rule: UpdateRule, budget: RamBudget, initializer: Initializer) -> ArenaRows:
    """Returns the rows of a table's hot tier. Raises ConfigError if the table's device is not available."""
    if config.device != "cpu":
        return DeviceRows(config, rule, budget.device)
    if isinstance(config.cold, Fp16):
        return MixedRows(config, rule, config.cold.state, budget.arrays)
    return PlainRows(config, rule, budget.arrays, initializer)


def _arena(rows: ArenaRows, budget: RamBudget, undo: ExitStack) -> Arena:
    try:
        ram = Arena(rows, budget)
    except BaseException:
        rows.close()
        raise
    undo.callback(ram.close)
    return ram
