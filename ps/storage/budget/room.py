"""The memory for slots of a shard's tables, and which table may have how much of it: a share where rows can go to disk,
and what is free goes to the table that needs it (docs/decisions/0024-lent-memory.md).

Owned by the engine thread. Sums over all tables are kept with each change (docs/decisions/0042-untouched-tables.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ps.errors import ResourceExhausted
from ps.storage.budget.slots import TABLE_BYTES, Slots

RETRY_S = 0.05
"""Seconds after which a request may find room: a slice of rows goes down in a few milliseconds."""
UNBOUNDED = 1 << 62


class Sharing(Protocol):
    """The decision how many bytes of a room each table may have (`ps.policy.placement.Shares`)."""

    def set(self, table: Slots, firm: int, usual: int, wanted: int) -> None:
        """Notes the bytes that a table has for certain, that its requests need at once, and that it wants in all."""

    def remove(self, table: Slots) -> None:
        """Forgets a table."""

    def of(self, table: Slots, room: int) -> int:
        """Returns the bytes of a room that a table may have."""


class Room:
    """The room for slots, and the tables that share it. `nbytes` None: it has no bound.

    With `sharing`, where rows can go to disk, each table has a share; what it holds beyond that, free, goes to the
    table that asks. Without it all that is free does: rows are evicted by their number, wherever they are.
    """

    def __init__(self, nbytes: int | None, sharing: Sharing | None = None) -> None:
        self._nbytes = nbytes
        self._sharing = sharing
        self._tables: dict[Slots, None] = {}
        self._held = 0  # by all tables
        self.claimed_bytes = 0
        """How many bytes a new table waits for."""
        self.lacked = 0
        """How many bytes a new table was refused last."""

    @property
    def bounded(self) -> bool:
        """Whether there is a bound but the host's memory."""
        return self._nbytes is not None

    @property
    def held(self) -> int:
        """How many bytes all tables hold."""
        return self._held

    def resize(self, change: int) -> None:
        """Adds bytes, or takes some away, where there is a bound."""
        if self._nbytes is not None:
            self._nbytes += change

    def join(self, row_bytes: int) -> Slots:
        """Returns the slots of a new table, whose memory beside its slots is taken with this. Raises ResourceExhausted,
        and then nothing has changed."""
        if self._nbytes is not None:
            tables = len(self._tables) + 1
            if tables > 1 and TABLE_BYTES * tables > self._nbytes // 2:
                raise ResourceExhausted(
                    f"a table takes {TABLE_BYTES:,} bytes before it has rows, and all of them may take half of the "
                    f"{self._nbytes:,} that memory.ram_bytes leaves. There are {tables - 1} tables: "
                    "raise memory.ram_bytes, drop tables or add shards"
                )
            self.find_fixed(TABLE_BYTES)
        slots = Slots(self, row_bytes)
        self._tables[slots] = None
        self.demands(slots)
        return slots

    def leave(self, slots: Slots) -> None:
        """Removes a table that is gone."""
        if slots in self._tables:
            del self._tables[slots]
            self._held -= slots.held
            if self._sharing is not None:
                self._sharing.remove(slots)

    def demands(self, slots: Slots) -> None:
        """Notes what a table needs now."""
        if self._sharing is not None and slots in self._tables:
            each = slots.bytes_each
            firm = max(slots.claimed, slots.reserved)
            self._sharing.set(slots, firm * each, slots.usual * each, slots.wanted * each)

    def holds(self, slots: Slots, change: int) -> None:
        """Notes that a table holds so many bytes more, or fewer."""
        if slots in self._tables:
            self._held += change

    def most(self, slots: Slots) -> int:
        """Returns how many slots a table may have: by its share where rows can go to disk, else all in which other
        tables have no rows."""
        if self._nbytes is None:
            return UNBOUNDED
        share = self._share(slots) if self._sharing else self._all() - self._rows_of_others(slots)
        return max(share, 0) // slots.bytes_each

    def fits(self, needed: Mapping[Slots, int]) -> bool:
        """Returns whether tables could have so many rows in RAM at once if there were no other request."""
        rows = {slots: max(slots.reserved, needed.get(slots, 0)) for slots in self._tables}
        return self._nbytes is None or sum(n * slots.bytes_each for slots, n in rows.items()) <= self._all()

    @property
    def unreserved(self) -> int:
        """Returns the bytes that a new table may take for good, with the rows that are to be its own: all that are not
        reserved for others."""
        reserved = sum(table.reserved * table.bytes_each for table in self._tables)
        return UNBOUNDED if self._nbytes is None else max(self._all() - TABLE_BYTES - reserved, 0)

    @property
    def rows_bytes(self) -> int:
        """Returns how many bytes all slots together may take; without a bound, more than there are."""
        return UNBOUNDED if self._nbytes is None else self._all()

    def find(self, slots: Slots, wanted: int) -> None:
        """Finds the bytes for a table that opens slots up to `wanted`; raises ResourceExhausted."""
        if self._sharing and wanted > self.most(slots):
            raise self._refusal(wanted, self.most(slots))
        if not self._found(slots.lacking(wanted), slots):
            slots.lend(0, slots.used, True)  # its own index may have grown for more slots than it has now
        if not self._found(slots.lacking(wanted), slots):
            most = min(self.most(slots), slots.used + max(self._left(), 0) // slots.bytes_each)
            raise self._refusal(wanted, most)

    def find_fixed(self, nbytes: int) -> None:
        """Finds so many bytes for something else than slots; raises ResourceExhausted."""
        if not self._found(nbytes, None):
            self.lacked = nbytes + TABLE_BYTES
            raise ResourceExhausted(
                f"{nbytes:,} bytes for a new table: rows of the others have all but {max(self._left(), 0):,} of what "
                "memory.ram_bytes leaves them: "
                + ("retry when some have gone to disk" if self._sharing else "raise it, or create tables first"),
                RETRY_S if self._sharing else None,
            )

    def _found(self, nbytes: int, whose: Slots | None) -> bool:
        """Returns whether so many bytes are free, after other tables have given back what they must."""
        for rebuild in (False, True):
            if self._left() >= nbytes:
                return True
            for table, least in self._lenders(whose):
                if self._left() < nbytes:
                    table.lend(nbytes - self._left(), least // table.bytes_each, rebuild)
        return self._left() >= nbytes

    def _lenders(self, whose: Slots | None) -> list[tuple[Slots, int]]:
        """Returns the tables that hold more than they may keep beside `whose`, and how many bytes that is; first those
        that hold most beyond it."""
        shared = self._sharing is not None and whose is not None
        kept = {table: self._share(table) if shared else 0 for table in self._tables if table is not whose}
        beyond = [table for table in kept if table.held > kept[table]]
        return [(table, kept[table]) for table in sorted(beyond, key=lambda table: kept[table] - table.held)]

    def _share(self, slots: Slots) -> int:
        assert self._sharing is not None
        return self._sharing.of(slots, max(self._all() - self.claimed_bytes, 0))

    def _all(self) -> int:
        assert self._nbytes is not None
        return max(self._nbytes - TABLE_BYTES * len(self._tables), 0)

    def _left(self) -> int:
        return self._all() - self._held

    def _rows_of_others(self, slots: Slots) -> int:
        others = [table for table in self._tables if table is not slots]
        return sum((t.used - (t.lender.free_slots() if t.lender else 0)) * t.bytes_each for t in others)

    def _refusal(self, slots: int, most: int) -> ResourceExhausted:
        """Returns the error for a table that cannot have so many slots."""
        what = f"{slots:,} rows of this table in RAM, and memory.ram_bytes leaves room for {most:,}"
        if self._sharing:
            return ResourceExhausted(f"{what}: retry when others have gone to disk", RETRY_S)
        return ResourceExhausted(f"{what}: raise memory.ram_bytes, give the shard a disk (disk.path) or add shards")
