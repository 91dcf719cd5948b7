"""`psctl doctor` checks where shards will log their writes: whether there is room, also beside the rows on the same
disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ps.cli.checks.disk import existing, taken
from ps.cli.checks.findings import Finding, fail, ok, warn
from ps.cli.screens.numbers import nbytes
from ps.config import ServiceConfig

SIZE = "psctl size --log says how much"


def log(config: ServiceConfig, shards: int) -> Iterator[Finding]:
    """Makes all checks of `log.path`, of a service that has a log."""
    path = config.log.path
    if config.log.mode == "off" or path is None:
        return
    free = _free(path)
    says = f"{nbytes(free)} free below {path}"
    if config.log.max_bytes is None:
        yield warn("log", f"{says}, and logs have no bound there", f"set log.max_bytes: {SIZE}")
        return
    wanted = shards * config.log.max_bytes - taken(path)
    if free < wanted:
        yield fail(
            "log",
            f"{says}, and the logs of {shards} shards may take {nbytes(wanted)} more: then writes are refused",
            "a lower log.max_bytes, or another disk",
        )
        return
    yield _beside(config, shards, says, free, wanted)


def _beside(config: ServiceConfig, shards: int, says: str, free: int, wanted: int) -> Finding:
    """Counts the rows too, where they are on the same file system."""
    rows, path = config.disk, config.log.path
    if rows.path is None or path is None or existing(rows.path).stat().st_dev != existing(path).stat().st_dev:
        return ok("log", says)
    if rows.max_bytes is None:
        return warn(
            "log",
            f"{says}, on the disk of {rows.path}, where rows have no bound: they can take the room of the log",
            "set disk.max_bytes, or put log.path on another disk",
        )
    together = wanted + shards * rows.max_bytes - taken(rows.path)
    if free < together:
        return warn(
            "log",
            f"{says}, on the disk of {rows.path}: logs and rows of {shards} shards may take {nbytes(together)} more",
            "a lower log.max_bytes or disk.max_bytes, or log.path on another disk",
        )
    return ok("log", f"{says}, for logs and rows")


def _free(path: Path) -> int:
    room = os.statvfs(existing(path))
    return room.f_bavail * room.f_frsize
