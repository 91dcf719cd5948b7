"""The memory that a shard may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from ps.config.sizes import ByteSize
from ps.values.frozen import Frozen

MIN_RAM_BYTES = 64 << 20
"""The least `ram_bytes` that a shard can be given."""


class MemoryConfig(Frozen):
    """The memory that a shard may use, in RAM and on a GPU."""

    ram_bytes: ByteSize | None = None
    """RAM that a shard's process may use beyond what it takes at its start, all of it counted; at least 64MiB. Caches
    and limits get at most a share of it, rows the rest. With a disk, rows that do not fit go there; without one, the
    least important rows are evicted. None: no bound but the host's memory."""
    gpu_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    """Bytes of rows that a shard may hold on a GPU, over its tables with `device: cuda`; a write that would pass it is
    refused. What torch itself needs comes on top, some hundred MiB. None: no bound but the GPU's memory."""

    @field_validator("ram_bytes")
    @classmethod
    def _workable(cls, ram_bytes: int | None) -> int | None:
        if ram_bytes is not None and ram_bytes < MIN_RAM_BYTES:
            raise ValueError(
                f"the smallest that works is {MIN_RAM_BYTES:,} bytes: what a process takes when it is used, messages, "
                "caches and write buffers need two thirds of that"
            )
        return ram_bytes
