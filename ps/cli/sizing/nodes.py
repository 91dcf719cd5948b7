"""How many shards and nodes a demand needs, and the settings of a shard: formulas behind `psctl size`. Pure.

    time of a row   1 / pulled a second + 1 / pushed a second     as measured, one shard and one trainer
    nodes           the most of: RAM / 0.85, disk / 0.8, network / 0.6, shards / shards a node
                    disk: rows, and with a log its bytes and those of the checkpoints

RAM and disk of nodes are planned by what shards are given (`suggested`), not by what they use.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from ps.cli.sizing.demand import START_BYTES, Demand, mean_dim, network, shard_size
from ps.cli.sizing.log import durable_bytes, log_bound
from ps.config import MIN_RAM_BYTES, ServiceConfig
from ps.errors import InvalidArgument
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.policy.eviction import DISK_SHARE, RAM_SHARE
from ps.storage.budget.budget import RamBudget

PULLED_ROWS_PER_S, PUSHED_ROWS_PER_S = 4.2e6, 3.1e6
"""Rows a second of one shard with dim 64 fp32 rows in RAM and prepared steps. Measured: the first table
of docs/numbers.md."""
AT_MOST_OF_RAM, AT_MOST_OF_DISK, AT_MOST_OF_NETWORK = 0.85, 0.8, 0.6
"""Shares of a node's RAM, disk and network that shards may take. The rest is for the system and the page cache; for
RocksDB while it compacts; for bursts."""


class Node(NamedTuple):
    """The resources of one node."""

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


def busy_shards(demand: Demand) -> int:
    """Returns how many shards do the work of a second within a second, at half of their speed, since not all steps come
    prepared."""
    seconds = demand.steps_per_s * demand.step_ids * (1 / PULLED_ROWS_PER_S + 1 / PUSHED_ROWS_PER_S)
    return max(math.ceil(2 * seconds * mean_dim(demand) / 64), 1)


def nodes(demand: Demand, node: Node) -> Nodes:
    """Counts the nodes by each resource; the scarcest decides. RAM and disk count as what shards are given
    (`suggested`), not as what they use; log and checkpoints count as if they lay on the nodes."""
    given, wire = suggested(demand), network(demand)
    ram = START_BYTES + (given.memory.ram_bytes or 0)
    disk = (given.disk.max_bytes or 0) + durable_bytes(demand)
    return Nodes(
        ram=_parts(ram * demand.shards, node.ram_bytes * AT_MOST_OF_RAM),
        disk=_parts(disk * demand.shards, node.disk_bytes * AT_MOST_OF_DISK),
        network=_parts(max(wire) * demand.steps_per_s, node.network_bytes_per_s * AT_MOST_OF_NETWORK),
        work=_parts(max(busy_shards(demand), demand.shards), node.shards),
    )


def suggested(demand: Demand) -> ServiceConfig:
    """Returns the settings of a shard with which all these rows fit: nothing is evicted, and the rows of a step find
    room."""
    service = demand.service.having(memory={"ram_bytes": None}, disk={"max_bytes": None}, log={"max_bytes": None})
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
    log = {} if (bound := log_bound(demand)) is None else {"max_bytes": bound}
    return service.having(memory={"ram_bytes": ram}, disk={"max_bytes": disk}, log=log)


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


def _parts(whole: float, part: float) -> int:
    if whole and part <= 0:
        raise InvalidArgument(
            "a node has none of what is needed: --node-ram, --node-disk and --node-network must be more"
        )
    return math.ceil(whole / part) if whole else 0
