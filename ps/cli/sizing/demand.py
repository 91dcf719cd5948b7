"""What one shard and one step take: formulas behind `psctl size`, from tables to processes and bytes on the wire. Pure.

a shard's RAM   what its process takes at its start           as measured
              + tables                                        `ps.cli.sizing.formulas`
              + 12 MiB once it is used                        `ps.storage.budget.aside`, and below
              + RocksDB's cache and write buffers             with a disk: at most 1/16 of ram_bytes each
              + what the allocator keeps                      1/32; at most 4 bodies of a push, 8 with a disk
to the shards   ids once, 8 + 1 for the count; the gradients that are sent, b dim each, a bit an id if not all are
from them       rows, b dim each                              b: 4, with fp16 2, with int8 1 + 4 / dim
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ps.cli.sizing.formulas import Load, TableSize, table_size
from ps.config import ServiceConfig, TableConfig
from ps.storage.budget.aside import PROCESS_BYTES, READ_COPIES, set_aside
from ps.wire.block import bits_bytes
from ps.wire.encodings import NUMBERS

START_BYTES = 218 << 20
"""RSS of a shard's process before it has tables: interpreter, numpy, numba, gRPC, RocksDB. Measured on x86-64, without
the 80 MB that Ray adds for an actor."""
KEPT_BODIES = 4
"""How many bodies of a push are in use or kept by the allocator. Measured."""
ID_BYTES, COUNT_BYTES = 8, 1
"""Bytes of an id and of its count on the wire, prepared."""


@dataclass(frozen=True)
class Demand:
    """The load that a service must carry."""

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
    """The memory and disk that one shard takes."""

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


def shard_size(demand: Demand) -> ShardSize:
    """Computes what a shard takes; ids are spread evenly by their hash."""
    s, has_disk = demand.shards, demand.service.disk.path is not None
    load = Load(math.ceil(demand.step_ids / s), math.ceil(demand.new_ids / s))
    sizes = tuple(table_size(config, math.ceil(ids / s), load, has_disk) for config, ids in demand.tables)
    used = sum(size.ram_bytes for size in sizes) + PROCESS_BYTES + _outside(demand, sizes)
    return ShardSize(START_BYTES + used, START_BYTES, sum(size.disk_bytes for size in sizes), sizes)


def _outside(demand: Demand, sizes: Sequence[TableSize]) -> int:
    """Returns the bytes of caches, of write buffers, and of memory that the allocator keeps. Cache and buffers together
    hold no more than there is on disk."""
    aside = set_aside(demand.service)
    below = sum(size.disk_bytes for size in sizes)
    copies = KEPT_BODIES + (READ_COPIES if below else 0)
    return min(aside.cache + aside.write_buffers, below) + min(aside.allocator, copies * _body(demand))


def network(demand: Demand) -> Network:
    """Counts the bytes of a step. The headers of messages are left out; they are some hundred bytes a shard."""
    n = demand.step_ids
    return Network(n * (ID_BYTES + COUNT_BYTES) + gradients(demand), _rows(demand, n))


def gradients(demand: Demand) -> int:
    """Counts the bytes of the gradients that are sent in a step, and of a bit for each id if not all are."""
    n = demand.step_ids
    sent = math.ceil(demand.density * n)
    return (0 if sent == n else bits_bytes(n)) + _rows(demand, sent)


def _body(demand: Demand) -> int:
    """Returns the bytes of a push to one shard."""
    return _rows(demand, math.ceil(demand.step_ids / demand.shards))


def _rows(demand: Demand, n: int) -> int:
    """Returns the bytes of `n` rows on the wire."""
    return NUMBERS[demand.wire].size(n, math.ceil(n * mean_dim(demand)))


def mean_dim(demand: Demand) -> float:
    """Returns the mean dim of the rows of a step, if every table has as many rows in it."""
    return sum(config.dim for config, _ in demand.tables) / len(demand.tables)
