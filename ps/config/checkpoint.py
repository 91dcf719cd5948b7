"""The checkpoints of a service."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ps.values.frozen import Frozen, Seconds


class CheckpointConfig(Frozen):
    """Where a service keeps its checkpoints, how often it makes one, and how many it keeps."""

    path: str | None = None
    """Folder for checkpoints, or the URL of one (s3://bucket/folder, memory://folder: whatever fsspec knows). All
    shards and the coordinator must see the same folder: on several hosts, a shared one or a URL. A relative path, and
    ~, are those of the host. None: none is made unless it is asked for with a path."""
    every_s: Seconds | None = None
    """How often the service makes a checkpoint by itself. None: only when it is asked."""
    keep: Annotated[int, Field(ge=1)] = 3
    """How many checkpoints stay when a new one is complete. One that others build on stays with them."""
    full_every: Annotated[int, Field(ge=1)] = 8
    """Every so many checkpoints one has all rows; those between have what has changed since the one before."""

    @model_validator(mode="after")
    def _a_rhythm_needs_a_path(self) -> Self:
        if self.every_s is not None and self.path is None:
            raise ValueError(f"every_s is {self.every_s:g}, and there is no path: set checkpoint.path too")
        return self
