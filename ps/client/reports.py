"""Adds up the reports of the shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ps.client.connection.connection import Connection
from ps.client.connection.retry import Deadline
from ps.errors import InternalError, PsError, ShardPoisoned, StateLost
from ps.quoting import shown
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.routing import Routing

ShardStats = Sequence[Mapping[str, Any]]
"""`Shard.stats()` of every shard, in the order of the routing table."""

ON_DEVICE = "device_rows"
"""The purpose of bytes that are on a GPU and not in RAM."""


def shard_stats(connection: Connection, deadline: Deadline) -> list[dict[str, Any]]:
    """Returns the statistics of all shards, asked at once. A shard that has lost its rows answers too, and says so in
    `state_lost`."""

    def ask(routing: Routing, shard: int) -> dict[str, Any]:
        answer = connection.on_shard(
            routing,
            shard,
            lambda address: connection.calls.unary(address, methods.STATS, pb.StatsRequest(), deadline),
            deadline,
        )
        return _report_of(answer)

    def ask_all(routing: Routing) -> list[dict[str, Any]]:
        return connection.tasks.each([partial(ask, routing, shard) for shard in range(len(routing.shards))], deadline)

    return connection.routed(lambda routing: routing, ask_all, deadline)


def answers(connection: Connection, routing: Routing, timeout_s: float) -> list[dict[str, Any] | PsError]:
    """Returns the report of every shard, or why it does not answer within `timeout_s`. All are asked at the same time,
    each once, so that a service in trouble can be watched."""
    deadline = connection.deadline(timeout_s)

    def ask(address: str) -> dict[str, Any] | PsError:
        try:
            return _report_of(connection.calls.unary(address, methods.STATS, pb.StatsRequest(), deadline))
        except PsError as error:
            return error

    return connection.tasks.each([partial(ask, shard.address) for shard in routing.shards], deadline)


def _report_of(answer: bytes) -> dict[str, Any]:
    """Returns the report in an answer. Raises InvalidArgument or InternalError for an answer that is none."""
    try:
        stats = json.loads(codec.parse(pb.StatsResponse, answer).stats_json)
    except ValueError as error:
        if isinstance(error, PsError):
            raise
        raise InternalError(f"the shard's report of itself cannot be read: {error}") from error
    if not isinstance(stats, dict):
        raise InternalError(f"the shard's report of itself is {shown(stats)}")
    return stats


def sizes(table: str, shards: ShardStats) -> list[int]:
    """Returns the rows of a table on each shard, over all tiers. Raises StateLost, because the sum would be too
    small."""
    _check_state(shards)
    return [sum(shard["tables"].get(table, {"rows": {}})["rows"].values()) for shard in shards]


def memory_usage(shards: ShardStats) -> dict[str, Any]:
    """Returns bytes: {"tables": {table: {tier: {purpose: n}}}, "outside_tables": {purpose: n}, "total": n}; the total
    is of RAM, without ON_DEVICE. Raises StateLost if a shard has lost its rows."""
    _check_state(shards)
    tables: dict[str, dict[str, dict[str, int]]] = {}
    outside: dict[str, int] = {}
    for shard in shards:
        for name, table in shard["tables"].items():
            for tier, purposes in table["bytes"].items():
                _add(tables.setdefault(name, {}).setdefault(tier, {}), purposes)
        _add(outside, shard["bytes"])
    in_tables = sum(
        n
        for tiers in tables.values()
        for purposes in tiers.values()
        for purpose, n in purposes.items()
        if purpose != ON_DEVICE
    )
    return {"tables": tables, "outside_tables": outside, "total": in_tables + sum(outside.values())}


@dataclass(frozen=True)
class TierShare:
    """The rows and bytes of a table on one tier, over all shards."""

    table: str
    tier: str
    rows: int
    """How many rows there are. For the cores of a tensor-train table, the rows that they have, which are the same on
    every shard."""
    nbytes: int
    """Bytes of RAM, or of RAM and the device, with everything that belongs to the rows; on disk, bytes of keys and
    values."""


def tiers(shards: ShardStats) -> list[TierShare]:
    """Returns rows and bytes by table, then tier, from the fastest tier down. A shard that has lost its rows counts as
    one without any."""
    shares = []
    for name in sorted({name for shard in shards for name in shard["tables"]}):
        parts = [shard["tables"][name] for shard in shards if name in shard["tables"]]
        for tier in parts[0]["rows"]:
            rows = sum(part["rows"][tier] for part in parts)
            shares.append(TierShare(name, tier, rows, sum(_tier_bytes(part, tier) for part in parts)))
        cores = parts[0]["tensor_train"]
        if cores is not None:
            nbytes = sum(_tier_bytes(part, "tensor_train") for part in parts)
            shares.append(TierShare(name, "tensor_train", cores["rows"], nbytes))
    return shares


def _tier_bytes(table: Mapping[str, Any], tier: str) -> int:
    if tier == "disk":
        return int(table["disk"].get("bytes", 0))
    return int(sum(table["bytes"][tier].values()))


def _check_state(shards: ShardStats) -> None:
    for shard in shards:
        if shard["state_lost"] is not None:
            raise StateLost(shard["state_lost"])
        if shard["poisoned"] is not None:
            raise ShardPoisoned(shard["poisoned"])


def _add(total: dict[str, int], part: Mapping[str, int]) -> None:
    for key, n in part.items():
        total[key] = total.get(key, 0) + n
