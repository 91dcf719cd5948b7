"""`psctl doctor` checks a running service: which shards answer, their release, their clocks and their limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ps.cli.checks.findings import Finding, fail, ok, warn
from ps.cli.screens.numbers import nbytes
from ps.cli.survey import DEGRADED, LOG_FAILED, POISONED, SERVING, STATE_LOST, Survey

CLOCK_S = 1.0
"""Clocks that differ by more than this make the epochs of a service hard to order, and its logs hard to read."""
FIXES = {
    DEGRADED: "psctl status says what its disk lacks; it goes on from RAM",
    STATE_LOST: "psctl down, psctl up, and psctl restore your newest checkpoint, or load your last export",
    LOG_FAILED: "export its tables, look at the disk of its log, and start it again",
    POISONED: "start it again, and load your last export unless it has a log; report what it has said",
}
DOWN_FIX = "look at its process and its host; Ray restarts it where it can"


def shards(survey: Survey) -> Iterator[Finding]:
    """Reports each shard that is not well, or that all are."""
    for seen in survey.shards:
        if seen.state != SERVING:
            found = warn if seen.state == DEGRADED else fail
            says = f"shard {seen.info.shard_id} is {seen.state}: {seen.why}"
            yield found("shards", says, FIXES.get(seen.state, DOWN_FIX))
    if survey.trouble is not None:
        yield warn("coordinator", f"nobody says where shards are: {survey.trouble}", DOWN_FIX)
    if all(seen.state == SERVING for seen in survey.shards):
        yield ok("shards", f"{len(survey.shards)} serve at {survey.address}")


def releases(survey: Survey, mine: str) -> Finding:
    """Compares the releases of the coordinator and of each shard with this client's."""
    others = {"the coordinator": survey.release}
    others |= {f"shard {stats['shard_id']}": str(stats.get("release", "")) for stats in survey.stats}
    different = [
        f"{who} runs {release or 'one that does not say'}" for who, release in others.items() if release != mine
    ]
    if different:
        return fail(
            "release",
            f"this client is embedding-ps {mine}; {', '.join(different)}",
            "install the same release on trainers and shards, then restart the service",
        )
    return ok("release", f"embedding-ps {mine} here and on {len(others) - 1} shards")


def clocks(stats: Sequence[Mapping[str, Any]], now_s: float, took_s: float) -> Finding:
    """Compares the shards' clocks with `now_s`, this host's clock just after all had answered within `took_s`. A
    difference below `took_s` cannot be told from the time that the answers took."""
    ahead = {shard["shard_id"]: shard["process"]["clock_s"] - now_s for shard in stats}
    wrong = {who: s for who, s in ahead.items() if s > CLOCK_S or s < -(CLOCK_S + took_s)}
    if wrong:
        says = ", ".join(f"shard {who} is {abs(s):.1f} s {'ahead' if s > 0 else 'behind'}" for who, s in wrong.items())
        return fail("clock", f"by this host's clock {says}", "run chrony or another NTP client on every host")
    return ok("clock", f"{len(stats)} shards agree with this host to {CLOCK_S + took_s:.1f} s")


def files(stats: Sequence[Mapping[str, Any]]) -> Finding:
    """Compares the open files of each shard's process with their limit."""
    process = [(shard["shard_id"], shard["process"]) for shard in stats]
    full = [(who, p) for who, p in process if p["files_open"] > 0.8 * p["files_limit"]]
    if full:
        says = ", ".join(f"shard {who} has {p['files_open']:,} of {p['files_limit']:,} files open" for who, p in full)
        return fail(
            "shard files", says, "raise nofile where shards run (/etc/security/limits.conf), restart the service"
        )
    most = max((p["files_open"] for _, p in process), default=0)
    return ok("shard files", f"at most {most:,} open, of {min((p['files_limit'] for _, p in process), default=0):,}")


def memory(stats: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Compares the budgets of the shards on each host with its RAM."""
    by_host: dict[str, list[Mapping[str, Any]]] = {}
    for shard in stats:
        by_host.setdefault(shard["process"]["host"], []).append(shard)
    for host, here in by_host.items():
        there = here[0]["process"]["host_ram_bytes"]
        budgets = [shard["budget"]["ram"] for shard in here]
        used = sum(shard["process"]["rss_bytes"] for shard in here)
        says = f"{len(here)} shards on {host} use {nbytes(used)} of {nbytes(there)}"
        if None in budgets:
            yield warn("shard memory", f"{says}, without a bound", "set memory.ram_bytes in the service file")
        elif sum(budgets) > there:
            yield fail(
                "shard memory",
                f"{says}, and may take {nbytes(sum(budgets))}",
                "a lower memory.ram_bytes, or more hosts",
            )
        else:
            yield ok("shard memory", says)
