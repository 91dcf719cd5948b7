"""How much RAM and disk a table takes on one shard: formulas behind `psctl size`. `ps.cli.sizing.demand` and
`ps.cli.sizing.nodes` have the others. Pure.

Layouts, headers and slots are taken from the shard's code; figures that had to be measured are constants here that say
so. N: rows of the table on this shard; bytes of

    a row           4 (dim + state)           float32; state: 0, 1, dim, 2 dim by the optimizer
                    2 items                   of half precision (cold fp16): dim + state, row-wise state 2
    its slot        18 + 20                   id, score, stamp, marks; its share of the index
                  + 12                        of a table with cold fp16: its place, and room in two lists
    in RAM          N, with a disk N (1 - swap_fraction) (1 + 1/64) and the rows of a step
    on disk         N                         a row that came up leaves its copy below
    a row there     1.05 (row + 10 + 13 + 13) key, header, what RocksDB adds; its levels
    the filter      1.5 an id on disk         in layers of 2^12, 2^15, 2^18 ids, twice as many, ...
    tensor train    12 p slice, for each core its values, and as much twice for gradients; 8 a cell of the sketch

A table with cold fp16 has 1.25 hot_fraction of its rows in float32, and those that are newer than two ticks, each a
64th of a half-life: half_life_pushes / 64 pushes, or what turns a 64th of the rows over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from ps.config import Fp16, TableConfig, TensorTrain
from ps.kernels.index.segments import LINE_BYTES, LINES, MAX_FILL
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.kernels.updates.optim import update_rule
from ps.policy import lifting, placement
from ps.storage.budget.slots import INDEX_BYTES, SLOT_BYTES
from ps.storage.disk.filter import layers_for
from ps.storage.ram.half_layout import half_layout
from ps.storage.ram.pools import PLACE_BYTES
from ps.storage.tier import RowLayout
from ps.table.beside import fixed_bytes
from ps.table.cold.fp16 import LEEWAY

METADATA_BYTES = SLOT_BYTES - INDEX_BYTES
"""Bytes of a slot beside the index: id, score and stamp, marks."""
ID_BYTES = LINES * LINE_BYTES / (MAX_FILL * math.log(2))
"""Bytes of the index for one id, on average: loads of segments lie between half of MAX_FILL and all of it, evenly in
the logarithm (Fagin et al. 1979)."""
ENTRY_BYTES = 13
"""Bytes that RocksDB adds to a key and its value: 8 for sequence and type, then lengths and a share of restarts and
index, less the shared beginning of the key. Measured."""
LEVELS = 1.05
"""The bytes on disk are this many times the rows' own: each level is at most a tenth of the next one, which is 1 to
1.11 at rest. It is more while rows are written faster than RocksDB compacts; `disk.max_bytes` leaves room for that."""


@dataclass(frozen=True)
class Load:
    """What a step of all trainers together brings to a table on one shard."""

    ids: int = 0
    """Unique ids of the step."""
    new_ids: int = 0
    """How many of these ids get a row with this step."""


class TableSize(NamedTuple):
    """The size of one table on one shard."""

    row_bytes: int
    """Bytes of a float32 row: its value and state."""
    slot_bytes: int
    """Bytes that a budget counts for a row in RAM: the row as float32, and an index at its emptiest."""
    ram_row_bytes: float
    """Bytes of a row in RAM with all that belongs to it, on average."""
    disk_row_bytes: float
    """Bytes of a row on disk with all that belongs to it, on average; 0 where no row is on disk."""
    rows_in_ram: int
    rows_on_disk: int
    ram_bytes: int
    disk_bytes: int


def table_size(config: TableConfig, ids: int, load: Load, has_disk: bool) -> TableSize:
    """Computes the size of a table. `ids` is the number of rows that exist in the end, on a shard with a disk or
    without; `load` is that of all its tables."""
    layout = RowLayout(config.dim, update_rule(config.optimizer, config.dim).state_width)
    rows, in_ram = ids, ids
    if isinstance(config.cold, TensorTrain):
        rows = in_ram = min(ids, int(lifting.MOST * config.cold.hot_rows))
    elif has_disk and config.swap_fraction:
        kept = placement.resident_rows(rows, config.swap_fraction)
        in_ram = min(rows, kept + kept // placement.SLACK + load.ids)
    below = rows if in_ram < rows else 0
    ram_row = _row_in_ram(config, layout, in_ram, load) + METADATA_BYTES + ID_BYTES
    disk_row = LEVELS * (_row_on_disk(config, layout) + KEY_BYTES + HEADER_BYTES + ENTRY_BYTES) if below else 0.0
    ram = in_ram * ram_row + filter_bytes(below) + sum(fixed_bytes(config, has_disk).values())
    slot = layout.row_bytes + SLOT_BYTES + (PLACE_BYTES if isinstance(config.cold, Fp16) else 0)
    return TableSize(
        layout.row_bytes, slot, ram_row, disk_row, in_ram, below, math.ceil(ram), math.ceil(below * disk_row)
    )


def _row_in_ram(config: TableConfig, layout: RowLayout, rows: int, load: Load) -> float:
    """Returns the bytes of a row in RAM. With cold fp16, LEEWAY * hot_fraction of the rows are float32, and so are rows
    newer than two ticks."""
    if not isinstance(config.cold, Fp16) or not rows:
        return layout.row_bytes
    half_life = config.clock_half_life
    new = 2 * (max(load.new_ids, rows // 64) if half_life is None else load.new_ids * math.ceil(half_life / 64))
    full = min(LEEWAY * config.cold.hot_fraction + new / rows, 1.0)
    return full * layout.row_bytes + (1 - full) * _half_bytes(config, config.cold) + PLACE_BYTES


def _row_on_disk(config: TableConfig, layout: RowLayout) -> float:
    """Returns the bytes of a row on disk. The least important rows are there: the cold ones, if the table has cold
    rows."""
    if not isinstance(config.cold, Fp16):
        return layout.row_bytes
    full = min(LEEWAY * config.cold.hot_fraction, 1.0)
    return full * layout.row_bytes + (1 - full) * _half_bytes(config, config.cold)


def _half_bytes(config: TableConfig, cold: Fp16) -> int:
    return half_layout(config.dim, config.optimizer, cold.state).row_bytes


def filter_bytes(ids: int) -> int:
    """Returns the bytes of the filter of ids on disk: it adds layers until all ids have room."""
    return sum(layers_for(ids))
