"""Settings that change how fast a shard is and what RAM it takes, never what it answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ps.config.sizes import ByteSize
from ps.values.frozen import Frozen, Seconds


class PerformanceConfig(Frozen):
    """Settings that change how fast a shard is and what RAM it takes, never what it answers."""

    grpc_threads: Annotated[int, Field(ge=2, le=1024)] = 16
    """Calls that are worked on at once: decoded, encoded, waiting for the engine. A call that waits for its client is
    not among them, nor is a push that waits for the other ranks of its round."""
    disk_cache_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = 64 << 20
    """RAM for RocksDB's blocks, indexes and filters, where there is a disk."""
    prepare_ttl_s: Seconds = 60.0
    """A prepared step that nobody used is forgotten after this long; its pull and push then carry their ids."""
    max_steps: Annotated[int, Field(ge=1)] = 1024
    """Prepared steps held at once. Beyond that the oldest is forgotten."""
    max_steps_bytes: Annotated[ByteSize, Field(ge=1)] = 256 << 20
    """Bytes of ids, counts and slots of prepared steps held at once. Beyond that the oldest is forgotten."""
