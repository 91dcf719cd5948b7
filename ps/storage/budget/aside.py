"""What is set aside of `memory.ram_bytes` for other things than rows, and the limits that follow from it."""

from __future__ import annotations

from dataclasses import dataclass

from ps.config import ServiceConfig
from ps.runtime import host

DEFAULT_WRITE_BUFFER_BYTES = 64 << 20
PROCESS_BYTES = 12 << 20
"""Bytes that a process takes when it is first used, whatever the budget: stacks, interpreter, connections."""
CALL_BYTES = 72 << 10
"""Bytes of a call in progress without its messages: thread, connection, interpreter (docs/decisions/0026-stalls.md)."""
CALLS_SHARE = 64
"""This part of `memory.ram_bytes` is for calls in progress; FEWEST_CALLS of them are part of PROCESS_BYTES."""
FEWEST_CALLS = 64
HOST_SHARE = 8
"""This part of the host's memory is for messages under way where there is no `memory.ram_bytes`."""
READ_COPIES = 4
"""Copies of a row while it is read from disk: RocksDB's answer, the joined values, the rows checked, the block."""


@dataclass(frozen=True)
class SetAside:
    """Bytes that are not for slots, by purpose."""

    cache: int
    write_buffers: int
    filters: int
    ledger: int
    steps: int
    bodies: int
    allocator: int

    @property
    def total(self) -> int:
        """All bytes that are not for slots."""
        return int(sum(vars(self).values())) + PROCESS_BYTES


def set_aside(config: ServiceConfig) -> SetAside:
    """Returns the configured sizes, but at most a share of `memory.ram_bytes` for each purpose."""
    ram = config.memory.ram_bytes
    on_disk = config.disk.path is not None
    if ram is None:
        ram = 1 << 62
    bodies = max(ram // 8, min(ram // 4, 32 << 20))
    return SetAside(
        cache=min(config.performance.disk_cache_bytes, ram // 16) if on_disk else 0,
        write_buffers=min(DEFAULT_WRITE_BUFFER_BYTES, ram // 16) if on_disk else 0,
        filters=ram // 16 if on_disk else 0,
        ledger=min(config.limits.max_ledger_bytes, ram // 32),
        steps=min(config.performance.max_steps_bytes, ram // 32),
        bodies=bodies,
        allocator=ram // 32,
    )


def bodies_of_host(config: ServiceConfig) -> int:
    """Returns the bytes for messages without `memory.ram_bytes`: any body fits; slow readers cannot fill the host."""
    return max(config.limits.max_body_bytes, host.host_ram_bytes() // HOST_SHARE)


def fitted(config: ServiceConfig) -> ServiceConfig:
    """Returns the configuration with the limits that `memory.ram_bytes` leaves room for."""
    if config.memory.ram_bytes is None:
        return config
    aside = set_aside(config)
    copies = 2 + READ_COPIES if config.disk.path is not None else 1
    calls = max(config.memory.ram_bytes // CALLS_SHARE // CALL_BYTES, FEWEST_CALLS)
    return config.having(
        limits={
            "max_requests": min(config.limits.max_requests, calls),
            "max_message_bytes": min(config.limits.max_message_bytes, aside.bodies // 2),
            "max_body_bytes": min(config.limits.max_body_bytes, aside.bodies // copies),
            "max_ledger_bytes": aside.ledger,
        },
        performance={
            "disk_cache_bytes": aside.cache or config.performance.disk_cache_bytes,
            "max_steps_bytes": aside.steps,
        },
    )
