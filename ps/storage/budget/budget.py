"""The bytes of RAM that a shard's process may use above what it takes at its start, and who may have how many.

Part of them is set aside by configured sizes: RocksDB's cache and write buffers, ledger, prepared steps, the filter of
ids, messages under way, what the allocator keeps. The rest is for slots, shared by the tables (docs/architecture.md).
Arrays shrink only when memory is asked for elsewhere, so the budget bounds how many slots a table opens, not how many
rows it has now; free ones go to the table that needs them.

Threads: a `Part` may be used by any; slots belong to the engine thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ps.config import ServiceConfig
from ps.errors import ResourceExhausted
from ps.policy import placement
from ps.runtime import memory
from ps.storage.budget.room import RETRY_S, TABLE_BYTES, Room
from ps.storage.ram.device_budget import DeviceBudget

HUGE_PAGES_FROM = 4 << 30
"""A smaller budget does without: arrays grow by pages then, not by 2 MiB each."""
DEFAULT_WRITE_BUFFER_BYTES = 64 << 20
PROCESS_BYTES = 12 << 20
"""What a process takes when it is first used, whatever the budget: stacks, interpreter, connections."""
CALL_BYTES = 72 << 10
"""Of a call in progress, without its messages: thread, connection, interpreter (docs/decisions/0026-stalls.md)."""
CALLS_SHARE = 64
"""One part in so many of `memory.ram_bytes` is for calls in progress, except a few that are part of PROCESS_BYTES."""
FEWEST_CALLS = 64
HOST_SHARE = 8
"""One part in so many of the host's memory is for messages under way where `memory.ram_bytes` does not say."""
READ_COPIES = 4
"""Of a row that is read from disk: RocksDB's answer, the joined values, the rows checked."""


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
        """All of them."""
        return int(sum(vars(self).values())) + PROCESS_BYTES


def set_aside(config: ServiceConfig) -> SetAside:
    """What is configured, but at most a share of `memory.ram_bytes` each: constants of the configuration alone."""
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


def _bodies_of_host(config: ServiceConfig) -> int:
    """Without `memory.ram_bytes`: any one body fits, and readers that do not read cannot fill the host."""
    return max(config.limits.max_body_bytes, memory.host_ram_bytes() // HOST_SHARE)


def fitted(config: ServiceConfig) -> ServiceConfig:
    """The configuration with the limits that `memory.ram_bytes` leaves room for."""
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


class Part:
    """So many bytes for one purpose. `limit` None: no bound but the host's memory, which arrays ask for in any case."""

    def __init__(self, limit: int | None, purpose: str, huge_pages: bool = True) -> None:
        self.huge_pages = huge_pages
        self.used = 0
        self.when_short: Callable[[], object] = lambda: None
        """Called when there is no room for what would fit alone: somebody may let go of what it does not use."""
        self._limit = limit
        self._purpose = purpose
        self._lock = threading.Lock()

    def resize(self, change: int) -> None:
        """More bytes, or fewer, where there is a limit."""
        with self._lock:
            if self._limit is not None:
                self._limit += change

    def take(self, n: int) -> None:
        """Before n bytes of an array are committed; raises ResourceExhausted, and then nothing is taken."""
        memory.HOST.take(n)
        self._add(n)

    def give(self, n: int) -> None:
        """n bytes have been given back."""
        with self._lock:
            self.used -= n

    @contextmanager
    def holding(self, n: int) -> Iterator[None]:
        """n bytes that come and go with a request. Raises ResourceExhausted as `hold` does."""
        self.hold(n)
        try:
            yield
        finally:
            self.give(n)

    def hold(self, n: int, beside: int = 0) -> None:
        """n bytes until they are given back. Raises ResourceExhausted, with a hint if they fit alone, together with
        what the same request holds `beside` them."""
        self._add(n, beside)

    def _add(self, n: int, beside: int = 0) -> None:
        with self._lock:
            if self._limit is None or self.used + n <= self._limit:
                self.used += n
                return
            used, limit = self.used, self._limit
        fits_alone = n + beside <= limit
        if fits_alone:
            self.when_short()
        raise ResourceExhausted(
            f"{n:,} bytes more for {self._purpose}: {used:,} are in use of the {limit:,} that memory.ram_bytes leaves "
            + ("them" if fits_alone else "them: ask for less at once, or raise memory.ram_bytes"),
            RETRY_S if fits_alone else None,
        )


class RamBudget:
    """A shard's."""

    def __init__(self, config: ServiceConfig) -> None:
        """`config` as it was given."""
        aside = set_aside(config)
        limit = config.memory.ram_bytes
        huge = limit is None or limit >= HUGE_PAGES_FROM
        rows = None if limit is None else limit - aside.total
        self.aside = aside
        self._rows_bytes = rows
        self.slots = Room(rows, config.disk.path is not None)
        self.arrays = Part(rows, "rows and their index", huge)
        self.device = DeviceBudget(config.memory.gpu_bytes)
        self.filters = Part(None if limit is None else aside.filters, "the filters of ids on disk", huge)
        self.bodies = Part(aside.bodies if limit is not None else _bodies_of_host(config), "messages under way")
        self.slice_bytes = placement.SLICE_BYTES if limit is None else min(placement.SLICE_BYTES, limit // 256)

    def hold(self, n: int, slots: int, purpose: str, remedy: str = "raise it") -> None:
        """n bytes of what is for slots, for something of a fixed size that `slots` bytes of slots go with. Raises
        ResourceExhausted, and then nothing is held."""
        if self._rows_bytes is not None:
            left = self.slots.unreserved
            if n + slots > left:
                raise ResourceExhausted(
                    f"{n + slots:,} bytes for {purpose}, memory.ram_bytes leaves {left:,}: {remedy}"
                )
            self.slots.find_fixed(n)
        memory.HOST.take(n)
        self._resize(-n)

    def hold_anyway(self, n: int) -> None:
        """Holds n bytes for what is there already: rows make room for it with the next writes."""
        self._resize(-n)

    def let_go(self, n: int) -> None:
        """Gives n bytes back that `hold` or `hold_anyway` took."""
        memory.HOST.give(n)
        self._resize(n)

    def _resize(self, change: int) -> None:
        if self._rows_bytes is not None:
            self._rows_bytes += change
        self.arrays.resize(change)
        self.slots.resize(change)

    def for_slots(self, tables: int) -> int | None:
        """Bytes that so many tables have for their slots: a function of configured constants. None: no bound."""
        return None if self._rows_bytes is None else max(self._rows_bytes - TABLE_BYTES * tables, 0)
