"""From tables to shards, network and nodes: the rest of the formulas behind `psctl size`. Pure.

    a shard's RAM   what its process takes at its start           as measured
                  + tables                                        `ps.cli.sizing.formulas`
                  + 12 MiB once it is used                        `ps.storage.budget.budget`, and below
                  + RocksDB's cache and write buffers             with a disk: at most 1/16 of memory.ram_bytes each
                  + what the allocator keeps                      1/32; at most 4 bodies of a push, 8 with a disk
    to the shards   ids once, 8 + 1 for the count; the gradients that are sent, b dim each, a bit an id if not all are
    from them       rows, b dim each                              b: 4, with fp16 2, with int8 1 + 4 / dim
    time of a row   1 / pulled a second + 1 / pushed a second     as measured, one shard and one trainer
    nodes           the most of: RAM / 0.85, disk / 0.8, network / 0.6, shards / shards a node

RAM and disk of nodes are what shards are given (`suggested`), not what they use of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ps.cli.sizing.formulas import Load, TableSize, table_size
from ps.config import MIN_RAM_BYTES, ServiceConfig, TableConfig
from ps.errors import InvalidArgument
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.policy.eviction import DISK_SHARE, RAM_SHARE
from ps.storage.budget.budget import PROCESS_BYTES, READ_COPIES, RamBudget, set_aside
from ps.wire.block import bits_bytes
from ps.wire.encodings import NUMBERS

START_BYTES = 218 << 20
"""RSS of a shard's process before it has tables: interpreter, numpy, numba, gRPC, RocksDB. Measured on x86-64, without
the 80 MB that Ray adds for an actor."""
KEPT_BODIES = 4
"""How many bodies of a push are in use or kept by the allocator. Measured."""
PULLED_ROWS_PER_S, PUSHED_ROWS_PER_S = 4.2e6, 3.1e6
"""Rows a second of one shard with dim 64 fp32 rows in RAM and prepared steps. Measured: the first table of the README's
numbers."""
AT_MOST_OF_RAM, AT_MOST_OF_DISK, AT_MOST_OF_NETWORK = 0.85, 0.8, 0.6
"""Shares of a node's RAM, disk and network that shards may take. The rest is for the system and the page cache; for
RocksDB while it compacts; for bursts."""
ID_BYTES, COUNT_BYTES = 8, 1
"""Bytes of an id and of its count on the wire, prepared."""


@dataclass(frozen=True)
class Demand:
    """What is asked of the service."""

    tables: Sequence[tuple[TableConfig, int]]
    """The tables, each with the rows that it has in the end over all shards."""
    service: ServiceConfig = field(default_factory=ServiceConfig)
    """The settings of each shard. Only its cache counts here, and whether it has a disk."""
    shards: int = 1
    step_ids: int = 100_000
    """Unique ids of a step of all trainers together, over all tables."""
    new_ids: int = 0
    """How many of these ids get a row."""
    steps_per_s: float = 1.0
    wire: str = "fp32"
    density: float = 1.0
    """The share of the gradients that is sent."""


class ShardSize(NamedTuple):
    """What one shard takes."""

    ram_bytes: int
    """RSS of the shard's process."""
    start_bytes: int
    """The part of this RSS that the process takes before it has tables."""
    disk_bytes: int
    tables: tuple[TableSize, ...]


class Network(NamedTuple):
    """Bytes of one step, all trainers and all shards together."""

    to_shards: int
    from_shards: int


class Node(NamedTuple):
    """What one node has."""

    ram_bytes: float
    disk_bytes: float
    network_bytes_per_s: float
    shards: int


class Nodes(NamedTuple):
    """How many nodes it takes, by RAM, disk, network and work."""

    ram: int
    disk: int
    network: int
    work: int

    @property
    def needed(self) -> int:
        """The number of nodes: the largest of the four."""
        return max(self)


def shard_size(demand: Demand) -> ShardSize:
    """Computes what a shard takes; ids are dealt evenly by their hash."""
    s, has_disk = demand.shards, demand.service.disk.path is not None
    load = Load(math.ceil(demand.step_ids / s), math.ceil(demand.new_ids / s))
    sizes = tuple(table_size(config, math.ceil(ids / s), load, has_disk) for config, ids in demand.tables)
    used = sum(size.ram_bytes for size in sizes) + PROCESS_BYTES + _outside(demand, sizes)
    return ShardSize(START_BYTES + used, START_BYTES, sum(size.disk_bytes for size in sizes), sizes)


def _outside(demand: Demand, sizes: Sequence[TableSize]) -> int:
    """Bytes of caches, of write buffers, and of what the allocator keeps. A cache holds no more than there is."""
    aside = set_aside(demand.service)
    below = sum(size.disk_bytes for size in sizes)
    copies = KEPT_BODIES + (READ_COPIES if below else 0)
    return min(aside.cache + aside.write_buffers, below) + min(aside.allocator, copies * _body(demand))


def network(demand: Demand) -> Network:
    """Counts the bytes of a step. The headers of messages are left out; they are some hundred bytes a shard."""
    n = demand.step_ids
    sent = math.ceil(demand.density * n)
    bitmap = 0 if sent == n else bits_bytes(n)
    return Network(n * (ID_BYTES + COUNT_BYTES) + bitmap + _rows(demand, sent), _rows(demand, n))


def busy_shards(demand: Demand) -> int:
    """Counts the shards that do a second's rows in a second at half their speed, since not all steps come prepared."""
    seconds = demand.steps_per_s * demand.step_ids * (1 / PULLED_ROWS_PER_S + 1 / PUSHED_ROWS_PER_S)
    return max(math.ceil(2 * seconds * _mean_dim(demand) / 64), 1)


def nodes(demand: Demand, node: Node) -> Nodes:
    """Counts the nodes by each resource; the scarcest decides. RAM and disk are what shards are given (`suggested`),
    not what they use of it."""
    given, wire = suggested(demand), network(demand)
    ram = START_BYTES + (given.memory.ram_bytes or 0)
    return Nodes(
        ram=_parts(ram * demand.shards, node.ram_bytes * AT_MOST_OF_RAM),
        disk=_parts((given.disk.max_bytes or 0) * demand.shards, node.disk_bytes * AT_MOST_OF_DISK),
        network=_parts(max(wire) * demand.steps_per_s, node.network_bytes_per_s * AT_MOST_OF_NETWORK),
        work=_parts(max(busy_shards(demand), demand.shards), node.shards),
    )


def suggested(demand: Demand) -> ServiceConfig:
    """Returns the settings of a shard with which all these rows fit: nothing is evicted, and the rows of a step find
    room."""
    service = demand.service.having(memory={"ram_bytes": None}, disk={"max_bytes": None})
    has_disk = service.disk.path is not None
    sizes = shard_size(demand).tables
    # A budget counts rows as float32 and an index at its emptiest: that is what it must have room for.
    steps = 2 * math.ceil(demand.step_ids / demand.shards)
    slots = sum((size.rows_in_ram + (steps if has_disk else 0)) * size.slot_bytes for size in sizes)
    fixed = sum(size.ram_bytes for size in sizes) - sum(int(size.rows_in_ram * size.ram_row_bytes) for size in sizes)
    wanted = fixed + (slots if has_disk else slots / RAM_SHARE)
    ram = _least_ram(service, wanted, len(sizes))
    rows = sum(size.rows_on_disk * (size.row_bytes + KEY_BYTES + HEADER_BYTES) for size in sizes)
    disk = -(-math.ceil(rows / DISK_SHARE) >> 20) << 20 if rows else None
    return service.having(memory={"ram_bytes": ram}, disk={"max_bytes": disk})


def settled(demand: Demand) -> Demand:
    """Returns the demand with the settings that `suggested` returns for it."""
    return replace(demand, service=suggested(demand))


def fitted_to(demand: Demand, node: Node) -> Demand:
    """Returns the demand with as many shards as its work takes, at least one for each node, and enough to fill the
    nodes. Each shard costs a process, so the number is computed again until it stays."""
    fitted = replace(demand, shards=busy_shards(demand))
    for _ in range(8):
        shards = max(busy_shards(fitted), nodes(fitted, node).needed)
        if shards == fitted.shards:
            break
        fitted = replace(fitted, shards=shards)
    return fitted


def _least_ram(service: ServiceConfig, wanted: float, tables: int) -> int:
    low, high = MIN_RAM_BYTES, MIN_RAM_BYTES
    while _for_slots(service, high, tables) < wanted:
        low, high = high, 2 * high
    while high - low > 1 << 20:
        middle = (low + high) // 2
        low, high = (low, middle) if _for_slots(service, middle, tables) >= wanted else (middle, high)
    return -(-high >> 20) << 20


def _for_slots(service: ServiceConfig, ram: int, tables: int) -> int:
    return RamBudget(service.having(memory={"ram_bytes": ram})).for_slots(tables) or 0


def _body(demand: Demand) -> int:
    """Bytes of a push to one shard."""
    return _rows(demand, math.ceil(demand.step_ids / demand.shards))


def _rows(demand: Demand, n: int) -> int:
    """Bytes of `n` rows on the wire."""
    return NUMBERS[demand.wire].size(n, math.ceil(n * _mean_dim(demand)))


def _mean_dim(demand: Demand) -> float:
    """The mean dim of the rows of a step, if every table has as many."""
    return sum(config.dim for config, _ in demand.tables) / len(demand.tables)


def _parts(whole: float, part: float) -> int:
    if whole and part <= 0:
        raise InvalidArgument(
            "a node has none of what is needed: --node-ram, --node-disk and --node-network must be more"
        )
    return math.ceil(whole / part) if whole else 0
