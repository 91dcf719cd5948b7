"""The bytes of RAM that a shard's process may use above what it takes at its start, and what may have how many.

Part of them is set aside by configured sizes: RocksDB's cache and write buffers, ledger, prepared steps, the filter of
ids, messages under way, what the allocator keeps. The rest is for slots, shared by the tables (docs/architecture.md).
Arrays shrink only when memory is asked for elsewhere, so the budget bounds how many slots a table opens, not how many
rows it has now; free slots go to the table that needs them.

Threads: a `Part` may be used by any thread; slots belong to the engine thread.
"""

from __future__ import annotations

from ps.config import ServiceConfig
from ps.errors import ResourceExhausted
from ps.runtime import memory
from ps.storage.budget.aside import bodies_of_host, set_aside
from ps.storage.budget.part import Part
from ps.storage.budget.room import Room, Sharing
from ps.storage.budget.slots import TABLE_BYTES
from ps.storage.ram.device_budget import DeviceBudget

HUGE_PAGES_FROM = 4 << 30
"""With a smaller budget arrays grow by pages, not by 2 MiB each."""
SLICE_BYTES = 1 << 20
"""Bytes of rows that the engine thread copies in one go, at most: half a millisecond."""


class RamBudget:
    """The budget of one shard."""

    def __init__(self, config: ServiceConfig, sharing: Sharing | None = None) -> None:
        """`config`: as the user gave it. `sharing`: what each table may have, where rows can go to disk."""
        aside = set_aside(config)
        limit = config.memory.ram_bytes
        huge = limit is None or limit >= HUGE_PAGES_FROM
        rows = None if limit is None else limit - aside.total
        self.aside = aside
        self._rows_bytes = rows
        self.slots = Room(rows, sharing)
        self.arrays = Part(rows, "rows and their index", huge)
        self.device = DeviceBudget(config.memory.gpu_bytes)
        self.filters = Part(None if limit is None else aside.filters, "the filters of ids on disk", huge)
        self.bodies = Part(aside.bodies if limit is not None else bodies_of_host(config), "messages under way")
        self.slice_bytes = SLICE_BYTES if limit is None else min(SLICE_BYTES, limit // 256)

    def hold(self, n: int, slots: int, purpose: str, remedy: str = "raise it") -> None:
        """Holds n bytes of what is for slots, for something of a fixed size that needs `slots` bytes of slots too.
        Raises ResourceExhausted, and then nothing is held."""
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
        """Returns the bytes that so many tables have for their slots, a function of configured constants; None where
        there is no bound."""
        return None if self._rows_bytes is None else max(self._rows_bytes - TABLE_BYTES * tables, 0)
