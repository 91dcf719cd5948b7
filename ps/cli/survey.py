"""Asks each shard of a service for its report, or finds out why it does not answer.

No wait for a shard is longer than the caller allows, and a dead shard does not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from ps.errors import PsError, Unavailable

if TYPE_CHECKING:
    from ps.config import TableConfig
    from ps.wire.routing import ShardInfo

SERVING, DEGRADED, DOWN, STATE_LOST, POISONED = "SERVING", "DEGRADED", "DOWN", "STATE_LOST", "POISONED"
LOG_FAILED = "LOG_FAILED"


@dataclass(frozen=True)
class Seen:
    """What one look has found out about one shard."""

    info: ShardInfo
    stats: Mapping[str, Any] | None
    """The shard's answer to `Control.Stats`; None where it did not answer."""
    why: str | None
    """What is wrong with the shard; None if nothing is."""
    state: str

    def report(self) -> dict[str, object]:
        """Returns this shard for JSON."""
        return {
            "shard_id": self.info.shard_id,
            "address": self.info.address,
            "metrics_address": self.info.metrics_address,
            "state": self.state,
            "why": self.why,
            "stats": self.stats,
        }


@dataclass(frozen=True)
class Survey:
    """What one look has found out about a whole service."""

    address: str
    release: str
    """The release of embedding-ps at this address."""
    at_s: float
    """The time of the look, on this process's monotonic clock."""
    shards: Sequence[Seen]
    tables: Mapping[str, TableConfig]
    trouble: str | None = None
    """Why the known addresses of shards may be old; None if they are current."""

    @property
    def stats(self) -> list[Mapping[str, Any]]:
        """The statistics of the shards that answer."""
        return [seen.stats for seen in self.shards if seen.stats is not None]


class Watch:
    """Looks at a service repeatedly, over one connection."""

    def __init__(self, address: str, timeout_s: float) -> None:
        """Connects; raises Unavailable if no server answers there."""
        from ps.client.connection.connection import Connection

        self._timeout_s = timeout_s
        try:
            self._connection = Connection(address)
        except Unavailable as error:
            raise Unavailable(
                f"{error}; if only the coordinator is down, --address of any shard shows the others"
            ) from error
        self._fresh = True

    def look(self) -> Survey:
        """Asks every shard, and returns after at most twice the timeout."""
        from ps.client.reports import answers

        trouble = None if self._fresh else self._refresh()
        self._fresh = False
        routing = self._connection.routing
        found = answers(self._connection, routing, self._timeout_s)
        shards = [seen(info, answer) for info, answer in zip(routing.shards, found, strict=True)]
        address = routing.coordinator or self._connection.address
        tables = dict(self._connection.tables)
        return Survey(address, self._connection.release, self._connection.clock.monotonic(), shards, tables, trouble)

    def close(self) -> None:
        """Ends the connections."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refresh(self) -> str | None:
        try:
            self._connection.refresh(self._connection.deadline(self._timeout_s))
        except PsError as error:
            return str(error)
        return None


def seen(info: ShardInfo, answer: Mapping[str, Any] | PsError) -> Seen:
    """Derives a shard's state from its answer."""
    if isinstance(answer, PsError):
        return Seen(info, None, str(answer), DOWN)
    if answer["state_lost"] is not None:
        return Seen(info, answer, str(answer["state_lost"]), STATE_LOST)
    if answer["poisoned"] is not None:
        return Seen(info, answer, str(answer["poisoned"]), POISONED)
    if answer["log"] is not None and answer["log"]["failed"] is not None:
        return Seen(info, answer, str(answer["log"]["failed"]), LOG_FAILED)
    if answer["degraded"] is not None:
        return Seen(info, answer, str(answer["degraded"]), DEGRADED)
    return Seen(info, answer, None, SERVING)


def look(address: str, timeout_s: float) -> Survey:
    """Looks at a service once."""
    with Watch(address, timeout_s) as watch:
        return watch.look()


def address_of(name: str, address: str) -> str:
    """Returns the address to ask: the one that is given, else that of the service started under this name on this
    host."""
    from ps.cluster.ray import local

    return address or local.read_state(name).address
