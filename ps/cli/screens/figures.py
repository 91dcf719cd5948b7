"""Figures of a survey: what is there now (`Levels`), and what went by between two surveys (`rates`). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ps.cli.survey import Survey

Stats = Mapping[str, Any]
Flows = dict[str, float]

FLOWS = {
    "pushes": "pushes applied",
    "rows_pulled": "rows read by pulls",
    "rows_pushed": "rows updated by pushes",
    "rows_raised": "rows that came up from disk",
    "rows_demoted": "rows that went down to disk",
    "rows_late": "rows read from disk while a call waited",
    "rows_evicted": "rows dropped for want of room or by age",
    "rows_refused": "gradients dropped: ids not admitted",
    "received_bytes": "bytes of messages to the shards",
    "sent_bytes": "bytes of messages from the shards",
    "calls": "calls answered",
    "steps_prepared": "steps prepared",
    "steps_expired": "steps prepared and never pushed",
}
"""The counters that psctl shows, each with what it counts."""


@dataclass(frozen=True)
class Levels:
    """Bytes and rows of some shards at one moment."""

    rows: Mapping[str, int]
    """Rows by tier."""
    ram: Mapping[str, int]
    """Bytes of RAM by tier; under "outside" those that belong to no table."""
    ram_budget: int | None
    """Bytes of RAM that the shards may take; None if any shard has no bound."""
    disk: int
    """Bytes of files."""
    disk_budget: int | None
    gpu: int
    gpu_budget: int | None

    @property
    def ram_used(self) -> int:
        """Bytes of RAM in use: all tiers, and what belongs to no table."""
        return sum(self.ram.values())

    def report(self) -> dict[str, object]:
        """Returns the levels for JSON."""
        return {**vars(self), "ram_used": self.ram_used}


def levels(shards: Sequence[Stats]) -> Levels:
    """Adds up the levels of some shards."""
    rows: dict[str, int] = {}
    ram: dict[str, int] = {}
    gpu = 0
    for shard in shards:
        for table in shard["tables"].values():
            _add(rows, table["rows"])
            gpu += sum(purposes.get(_on_device(), 0) for purposes in table["bytes"].values())
            _add(ram, {tier: _in_ram(purposes) for tier, purposes in table["bytes"].items()})
        _add(ram, {"outside": sum(shard["bytes"].values())})
    return Levels(
        rows,
        ram,
        _budget(shards, "ram"),
        sum(shard["disk_bytes"] or 0 for shard in shards),
        _budget(shards, "disk"),
        gpu,
        _budget(shards, "gpu"),
    )


def flows(shard: Stats) -> Flows:
    """Returns what one shard has counted since its start, by the names in FLOWS."""
    tables, traffic = list(shard["tables"].values()), shard["traffic"]

    def of_tables(*names: str) -> int:
        return sum(table[name] for table in tables for name in names)

    return {
        "pushes": shard["pushes"],
        "rows_pulled": of_tables("rows_read"),
        "rows_pushed": of_tables("rows_updated", "rows_in_cores"),
        "rows_raised": of_tables("rows_raised"),
        "rows_demoted": of_tables("rows_demoted"),
        "rows_late": shard["rows_late"],
        "rows_evicted": of_tables("rows_evicted", "rows_expired"),
        "rows_refused": of_tables("rows_refused"),
        "received_bytes": sum(traffic["received_bytes"].values()),
        "sent_bytes": sum(traffic["sent_bytes"].values()),
        "calls": sum(traffic["calls"].values()),
        "steps_prepared": shard["steps_prepared"],
        "steps_expired": shard["steps_expired"],
    }


def total(parts: Iterable[Flows]) -> Flows:
    """Adds up flows; the total of none is zeros."""
    found: Flows = dict.fromkeys(FLOWS, 0)
    for part in parts:
        _add(found, part)
    return found


def rates(before: Survey, after: Survey) -> dict[int, Flows]:
    """Returns flows a second by shard id, for shards that answered both times and were not restarted in between."""
    seconds = after.at_s - before.at_s
    earlier = {stats["shard_id"]: stats for stats in before.stats}
    found = {}
    for stats in after.stats:
        old = earlier.get(stats["shard_id"])
        if old is None or old["process"]["pid"] != stats["process"]["pid"] or seconds <= 0:
            continue
        was = flows(old)
        # A table that was dropped takes its counters along.
        found[stats["shard_id"]] = {name: max(now - was[name], 0) / seconds for name, now in flows(stats).items()}
    return found


def _on_device() -> str:
    from ps.client.reports import ON_DEVICE

    return ON_DEVICE


def _in_ram(purposes: Mapping[str, int]) -> int:
    return sum(n for purpose, n in purposes.items() if purpose != _on_device())


def _budget(shards: Sequence[Stats], kind: str) -> int | None:
    found = [shard["budget"][kind] for shard in shards]
    return None if not found or None in found else sum(found)


def _add(to: dict[str, Any], part: Mapping[str, Any]) -> None:
    for name, n in part.items():
        to[name] = to.get(name, 0) + n
