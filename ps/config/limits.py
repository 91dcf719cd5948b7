"""What clients may ask of a shard at once: more is refused, with an error that names the limit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ps.config.sizes import ByteSize
from ps.values.frozen import Frozen


class LimitsConfig(Frozen):
    """What clients may ask of a shard at once. More is refused, with an error that names the limit."""

    max_requests: Annotated[int, Field(ge=1, le=4096)] = 256
    """Calls in progress at once, including those that wait for their client; each has a thread. A call beyond them is
    refused with RESOURCE_EXHAUSTED and a hint when to retry. One connection may have a quarter of them. Half of them
    may be pushes that wait, without a thread, for the other ranks of their rounds: so a group can have at most half of
    `max_requests` ranks, and one more. Describe, Stats, Advance and health calls are not counted."""
    max_connections: Annotated[int, Field(ge=1)] = 1024
    """Clients connected at once; fewer where the process may open fewer files. A client beyond them is turned away and
    retries."""
    max_message_bytes: Annotated[ByteSize, Field(ge=1 << 20, le=1 << 30)] = 64 << 20
    """Largest single gRPC message, in both directions. With `memory.ram_bytes` it is at most half of what messages
    under way may take. Rows and gradients travel in chunks and are not bound by it."""
    max_ids: Annotated[int, Field(ge=1)] = 4 << 20
    """Most ids in one request, over all its tables."""
    max_body_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = 1 << 30
    """Most bytes of rows or gradients in one call: they are held in memory until they are applied or sent."""
    ledger_window: Annotated[int, Field(ge=16)] = 1024
    """Pushes that a shard remembers of each worker, so that a retry is not applied twice. A retry that comes later
    than that many pushes is refused."""
    max_ledger_bytes: Annotated[ByteSize, Field(ge=1 << 20)] = 256 << 20
    """Bytes of remembered writes over all workers. Beyond it the writes of the workers that were silent longest are
    forgotten."""
