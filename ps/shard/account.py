"""Where the memory of a shard's process is, beside the tables' arrays: what the allocator has from the system, by what
it is for. The interpreter's own small objects are counted where they are many (the ledger)."""

from __future__ import annotations

from collections.abc import Mapping

from ps.memory import heap


class Account:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._start = heap()

    def explain(self, ledger: int, known: Mapping[str, int]) -> dict[str, int]:
        """Bytes by purpose: `known` of the allocator's, the rest of what it has handed out ("other": buffers of
        connections, indexes of files), and what was freed and stays with it ("allocator")."""
        now = heap()
        in_use = now.held - now.free - (self._start.held - self._start.free)
        return {
            "ledger": ledger,
            **known,
            "other": max(in_use - sum(known.values()), 0),
            "allocator": max(now.free - self._start.free, 0),
        }
