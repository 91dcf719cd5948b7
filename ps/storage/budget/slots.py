"""The slots of one table, out of the room that all tables of a shard share. Owned by the engine thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ps.kernels.index.index import SPARE_SEGMENTS
from ps.kernels.index.segments import LINE_BYTES, LINES
from ps.runtime.address_space import PAGE

if TYPE_CHECKING:
    from ps.storage.budget.room import Room

LENT_AT_ONCE = 16
"""A table that gives slots back gives at least this part of its slots, if they are free: it seldom has to."""
INDEX_BYTES = 28
"""Bytes of the id index for each slot when all its segments are half full, which is as empty as they get."""
SLOT_BYTES = 18 + INDEX_BYTES
"""Bytes that a slot takes beside its row."""
TABLE_BYTES = (1 + SPARE_SEGMENTS) * LINES * LINE_BYTES + 8 * PAGE
"""Bytes by which a table's arrays are larger than its slots."""


class Lender(Protocol):
    """A table whose free slots can give their memory to other tables."""

    def free_slots(self) -> int:
        """Returns how many of its slots have no row."""

    def shrink(self, slots: int, rebuild: bool) -> None:
        """Gives back the slots from `slots` on, and with `rebuild` also what its index does not need."""


class Slots:
    """The slots of one table. What it holds and what it needs is noted in the room with each change."""

    def __init__(self, room: Room, row_bytes: int) -> None:
        self.bytes_each = row_bytes + SLOT_BYTES
        self.lender: Lender | None = None
        self._used = self._wanted = self._usual = self._claimed = self._reserved = 0
        self._indexed = 0  # slots that the index has grown for
        self._room = room

    @property
    def used(self) -> int:
        """How many slots are open."""
        return self._used

    @property
    def wanted(self) -> int:
        """How many slots the table would have if there were room."""
        return self._wanted

    @property
    def usual(self) -> int:
        """How many slots the larger requests have needed lately."""
        return self._usual

    @property
    def claimed(self) -> int:
        """How many slots a request waits for: the table may have them, whatever other tables want."""
        return self._claimed

    @property
    def reserved(self) -> int:
        """How many slots are the table's own whatever other tables need, for rows that may not leave RAM."""
        return self._reserved

    @property
    def held(self) -> int:
        """How many bytes the table has taken."""
        return self._used * (self.bytes_each - INDEX_BYTES) + self._indexed * INDEX_BYTES

    def most(self) -> int:
        """Returns how many slots the table may have, as things are now."""
        return self._room.most(self)

    @property
    def bounded(self) -> bool:
        """Whether there is a bound but the host's memory."""
        return self._room.bounded

    def want(self, slots: int) -> None:
        """Notes how many slots the table would have if there were room."""
        if slots != self._wanted:
            self._wanted = slots
            self._room.demands(self)

    def ask(self, rows: int) -> None:
        """Notes that a request needs so many slots at once: as many should be free when the next one comes."""
        usual = max(rows, self._usual - self._usual // 64)
        if usual != self._usual:
            self._usual = usual
            self._room.demands(self)

    def claim(self, slots: int) -> None:
        """Keeps so many slots for a request that waits; 0 ends its claim."""
        self._claimed = slots
        self._room.demands(self)

    def reserve(self, slots: int) -> None:
        """Keeps so many slots for rows that may not leave RAM."""
        self._reserved = slots
        self._room.demands(self)

    def open(self, slots: int) -> None:
        """Opens slots [0, slots) before their use; raises ResourceExhausted. Slots of other tables may move for it."""
        if slots <= self._used:
            return
        self.want(max(self._wanted, slots))
        if self.bounded:
            self._room.find(self, slots)
        self._hold(slots, max(self._indexed, slots))

    def lacking(self, slots: int) -> int:
        """Returns how many bytes it takes to open slots [used, slots)."""
        index = max(slots - self._indexed, 0) * INDEX_BYTES
        return (slots - self._used) * (self.bytes_each - INDEX_BYTES) + index

    def lend(self, nbytes: int, least: int, rebuild: bool) -> None:
        """Gives back so many bytes, or some more, but keeps `least` slots and those with rows. With `rebuild` the index
        is built again as well."""
        if self.lender is None:
            return
        kept = max(self._used - self.lender.free_slots(), least)
        wanted = max(-(-nbytes // self.bytes_each), self._used // LENT_AT_ONCE)
        slots = min(max(kept, self._used - wanted), self._used)  # its index alone may be what it holds too much
        if slots < self._used or (rebuild and self._indexed > self._used):
            self.lender.shrink(slots, rebuild)
            self._hold(slots, slots if rebuild else self._indexed)

    def close(self) -> None:
        """Notes that the table's memory was given back."""
        self._room.leave(self)

    def _hold(self, used: int, indexed: int) -> None:
        before = self.held
        self._used, self._indexed = used, indexed
        self._room.holds(self, self.held - before)
