"""Accounts for the memory of a shard's process beside the tables' arrays: the memory that the allocator has from the
system, by purpose. Small objects of the interpreter are counted only where there are many (the ledger)."""

from __future__ import annotations

from collections.abc import Mapping

from ps.runtime.host import file_pages_bytes, heap


class Account:
    """Counts memory from its own creation on."""

    def __init__(self) -> None:
        self._start = heap()
        self._code = file_pages_bytes()

    def explain(self, ledger: int, known: Mapping[str, int], of_tables: int) -> dict[str, int]:
        """Returns bytes by purpose. Of the allocator's, which include `of_tables` that are accounted for elsewhere: the
        `known` ones, the rest of what it has handed out ("other": buffers of connections, indexes of files), and what
        it could hand out before it asks the system ("allocator": freed, or never used; so a little of it may not be in
        RAM). "code" are the libraries' pages that have been used meanwhile."""
        now = heap()
        in_use = now.held - now.free - (self._start.held - self._start.free)
        return {
            "ledger": ledger,
            **known,
            "code": max(file_pages_bytes() - self._code, 0),
            "other": max(in_use - sum(known.values()) - of_tables, 0),
            "allocator": max(now.free - self._start.free, 0),
        }
