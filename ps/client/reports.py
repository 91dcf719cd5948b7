"""What the shards report of themselves, added up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ps.client.connection import Connection
from ps.client.retry import Deadline
from ps.errors import StateLost
from ps.v1 import control_pb2 as pb
from ps.wire import codec, methods
from ps.wire.routing import Routing

ShardStats = Sequence[Mapping[str, Any]]
"""`Shard.stats()` of every shard, in the order of the routing table."""


def shard_stats(connection: Connection, deadline: Deadline) -> list[dict[str, Any]]:
    """Asks all shards at once. A shard that has lost its rows answers too, and says so: `state_lost`."""

    def ask(routing: Routing, shard: int) -> dict[str, Any]:
        answer = connection.on_shard(
            routing, shard, lambda address: connection.unary(address, methods.STATS, b"", deadline), deadline
        )
        stats: dict[str, Any] = json.loads(codec.parse(pb.StatsResponse, answer).stats_json)
        return stats

    def ask_all(routing: Routing) -> list[dict[str, Any]]:
        return connection.each([partial(ask, routing, shard) for shard in range(len(routing.shards))])

    return connection.routed(lambda routing: routing, ask_all, deadline)


def size(table: str, shards: ShardStats) -> int:
    """Rows of a table over all shards and tiers. Raises StateLost: without a shard's rows it would be too small."""
    _check_state(shards)
    return sum(sum(shard["tables"].get(table, {"rows": {}})["rows"].values()) for shard in shards)


def memory_usage(shards: ShardStats) -> dict[str, Any]:
    """Bytes: {"tables": {table: {tier: {purpose: n}}}, "outside_tables": {purpose: n}, "total": n}. Raises
    StateLost."""
    _check_state(shards)
    tables: dict[str, dict[str, dict[str, int]]] = {}
    outside: dict[str, int] = {}
    for shard in shards:
        for name, table in shard["tables"].items():
            for tier, purposes in table["bytes"].items():
                _add(tables.setdefault(name, {}).setdefault(tier, {}), purposes)
        _add(outside, shard["bytes"])
    in_tables = sum(sum(purposes.values()) for tiers in tables.values() for purposes in tiers.values())
    return {"tables": tables, "outside_tables": outside, "total": in_tables + sum(outside.values())}


def _check_state(shards: ShardStats) -> None:
    for shard in shards:
        if shard["state_lost"] is not None:
            raise StateLost(shard["state_lost"])


def _add(total: dict[str, int], part: Mapping[str, int]) -> None:
    for key, n in part.items():
        total[key] = total.get(key, 0) + n
