"""The bytes of rows that a shard may hold on a device (`memory.gpu_bytes`), shared by its tables as they come.

Owned by the engine thread.
"""

from __future__ import annotations

from ps.errors import ResourceExhausted


class DeviceBudget:
    """The budget of one shard's device. `limit` None: no bound but the device's memory, which allocations check in any
    case."""

    def __init__(self, limit: int | None) -> None:
        self.used = 0
        self._limit = limit

    @property
    def left(self) -> int:
        """How many bytes can still be taken."""
        return 1 << 62 if self._limit is None else self._limit - self.used

    def take(self, n: int) -> None:
        """Takes n bytes before they are allocated; raises ResourceExhausted, and then nothing is taken."""
        if n > self.left:
            raise ResourceExhausted(
                f"{n:,} bytes more for rows on the device: {self.used:,} are in use of "
                f"memory.gpu_bytes={self._limit:,}: raise it, bound the tables "
                "(max_rows_per_shard, or a larger swap_fraction) or add shards"
            )
        self.used += n

    def give(self, n: int) -> None:
        """Notes that n bytes have been given back."""
        self.used -= n
