"""What a log and checkpoints take: formulas behind `psctl size`. Pure.

log of a step     ids once, 8 + 4 for the count of an id that a batch names more than once
                  + the gradients as they were sent (`network`) + 160 for each push to a shard
log kept          what comes in (checkpoints kept + 1) times every_s, and two files
checkpoint, full  rows in RAM, each with 18 for id, statistics and marks, and the files of those on disk
increment         rows that were pushed in every_s; never more than a full one
checkpoints kept  1 + keep / full_every full ones, and keep + full_every - 2 increments: what kept ones build on
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ps.cli.sizing.demand import ID_BYTES, Demand, gradients, shard_size
from ps.durability.log.grammar import RECORD_BYTES
from ps.storage.ram.saving import STATISTICS_BYTES

COUNT_BYTES = 4
"""Bytes of the count of an id. A push of ids that are all different has none."""
PUSH_BYTES = RECORD_BYTES + 128
"""Bytes of a record beside its ids and gradients: a push of one table. Measured."""


class LogSize(NamedTuple):
    """What one step adds to the logs of all shards, and what one shard keeps on disk."""

    step_bytes: int
    per_hour_bytes: int
    per_day_bytes: int
    kept_bytes: int | None
    """The log of one shard just before its beginning goes; None: it only grows, because there are no checkpoints."""
    checkpoint_bytes: int
    """A full checkpoint of one shard."""
    checkpoints_bytes: int
    """All that are kept of one shard's, at most. They are where `checkpoint.path` is."""


def log_size(demand: Demand) -> LogSize:
    """Computes what is logged of the demand's steps, whether its service has a log or not."""
    step = demand.step_ids * (ID_BYTES + COUNT_BYTES) + gradients(demand) + demand.shards * PUSH_BYTES
    per_s = step * demand.steps_per_s
    full = _full(demand)
    kept, checkpoints = _kept(demand, per_s), _checkpoints(demand, full)
    return LogSize(step, math.ceil(3600 * per_s), math.ceil(86_400 * per_s), kept, full, checkpoints)


def log_bound(demand: Demand) -> int | None:
    """Returns the `log.max_bytes` of a shard with which no write waits for a checkpoint, in whole MiB; None: it would
    need no bound, or there are no checkpoints that let a log be cut."""
    kept = log_size(demand).kept_bytes if demand.service.log.mode != "off" else None
    return None if kept is None else -(-kept >> 20) << 20


def durable_bytes(demand: Demand) -> int:
    """Returns the disk that log and checkpoints of one shard take, where the service has a log; both may lie
    elsewhere than on the shard's node."""
    if demand.service.log.mode == "off":
        return 0
    size = log_size(demand)
    return (size.kept_bytes or 0) + (size.checkpoints_bytes if demand.service.checkpoint.path is not None else 0)


def _kept(demand: Demand, per_s: float) -> int | None:
    checkpoint = demand.service.checkpoint
    if checkpoint.every_s is None:
        return None
    between = per_s / demand.shards * checkpoint.every_s
    return math.ceil((checkpoint.keep + 1) * between) + 2 * demand.service.log.segment_bytes


def _full(demand: Demand) -> int:
    """Returns the bytes of a full checkpoint of a shard. Where a table's cold rows have half precision, it counts all
    as float32."""
    sizes = shard_size(demand).tables
    return sum(size.rows_in_ram * (size.row_bytes + STATISTICS_BYTES) + size.disk_bytes for size in sizes)


def _checkpoints(demand: Demand, full: int) -> int:
    checkpoint = demand.service.checkpoint
    fulls = 1 + math.ceil(checkpoint.keep / checkpoint.full_every)
    increments = checkpoint.keep + checkpoint.full_every - 2 if checkpoint.full_every > 1 else 0
    if checkpoint.full_every == 1:
        fulls = checkpoint.keep + 1
    sizes = shard_size(demand).tables
    row = max(size.row_bytes for size in sizes) + STATISTICS_BYTES
    pushed = demand.step_ids / demand.shards * demand.steps_per_s * (checkpoint.every_s or math.inf)
    return fulls * full + increments * math.ceil(min(full, pushed * row))
