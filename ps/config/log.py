"""The log of a shard's writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ps.config.sizes import ByteSize
from ps.values.frozen import Frozen, Seconds


class LogConfig(Frozen):
    """Where a shard logs its writes, and when a write counts as durable. A service that is started on a log goes on
    where it stopped, and needs as many shards as before."""

    mode: Literal["off", "interval", "sync"] = "off"
    """What an acknowledged write survives. off: nothing, there is no log. interval: the end of the process; what the
    last `interval_s` brought is lost with the host. sync: the end of the host; each answer waits for the disk."""
    path: Path | None = None
    """Directory for the log. Each shard has a folder of its own below it. A relative path, and ~, are those of the host
    that the shard runs on."""
    interval_s: Seconds = 1.0
    """With `interval`: how often the log is synced to the disk."""
    segment_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = 256 << 20
    """A file of the log ends when it has so many bytes; it has at most one write more."""
    max_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    """Room for the log on disk. When it is full, writes are refused until a checkpoint at `checkpoint.path` lets its
    beginning go. None: no bound."""

    @model_validator(mode="after")
    def _a_log_needs_a_path(self) -> Self:
        if self.mode != "off" and self.path is None:
            raise ValueError(f"mode is {self.mode!r}, and there is no path: set log.path, the folder for the log, too")
        return self
