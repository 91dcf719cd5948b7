"""The disk that a shard may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from ps.config.sizes import ByteSize
from ps.values.frozen import Frozen


class DiskConfig(Frozen):
    """Where a shard keeps rows on disk, and how many."""

    path: Path | None = None
    """Directory for rows on disk. None: all rows stay in RAM. Each shard has a folder of its own below it, which it
    empties at the start, and fills from its log and checkpoints if it has a log (`log.path`). A relative path, and ~,
    are those of the host that the shard runs on."""
    max_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    """Room on disk. Four fifths of it are for rows, the rest is for what RocksDB keeps until it compacts. When the
    rows' part is full the least important rows are evicted, down to about 0.95 of it. None: no bound."""

    @model_validator(mode="after")
    def _room_needs_a_disk(self) -> Self:
        if self.max_bytes is not None and self.path is None:
            raise ValueError(f"max_bytes is {self.max_bytes:,}, and there is no disk: set disk.path too")
        return self
