"""Slots of all tables of a shard, and who may have how many: shares where rows can go to disk, and what is free goes to
the table that needs it (docs/decisions/0024-lent-memory.md).

Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ps.errors import ResourceExhausted
from ps.kernels.index.index import SPARE_SEGMENTS
from ps.kernels.index.segments import LINE_BYTES, LINES
from ps.policy import placement
from ps.runtime.address_space import PAGE

RETRY_S = 0.05
"""After which a request may find room: a slice of rows goes down in a few milliseconds."""
LENT_AT_ONCE = 16
"""A table that gives slots back gives at least so large a part of them, if they are free: it seldom has to."""
INDEX_BYTES = 28
"""Of the id index for a slot when all its segments are half full, which is as empty as they get."""
SLOT_BYTES = 18 + INDEX_BYTES
"""For a slot beside the row."""
TABLE_BYTES = (1 + SPARE_SEGMENTS) * LINES * LINE_BYTES + 8 * PAGE
"""By which a table's arrays are larger than its slots."""


class Lender(Protocol):
    """A table whose free slots others may be given the memory of."""

    def free_slots(self) -> int:
        """How many of its slots have no row."""

    def shrink(self, slots: int, rebuild: bool) -> None:
        """Gives back the slots from `slots` on, and with `rebuild` what its index does not need."""


class Slots:
    """One table's slots, of those that all share."""

    def __init__(self, room: Room, row_bytes: int) -> None:
        self.bytes_each = row_bytes + SLOT_BYTES
        self.used = 0
        """Opened, and not given back."""
        self.wanted = 0
        """The table would have so many, were there room."""
        self.usual = 0
        """The larger requests have taken so many lately."""
        self.claimed = 0
        """A request waits for so many: the table may have them, whatever others want."""
        self.reserved = 0
        """So many are the table's own whatever others need: rows that may not leave RAM."""
        self.lender: Lender | None = None
        self._indexed = 0  # slots that the index has grown for
        self._room = room

    @property
    def held(self) -> int:
        """Bytes that it has taken."""
        return self.used * (self.bytes_each - INDEX_BYTES) + self._indexed * INDEX_BYTES

    def most(self) -> int:
        """How many the table may have, as things are now."""
        return self._room.most(self)

    @property
    def bounded(self) -> bool:
        """Whether there is a bound but the host's memory."""
        return self._room.bounded

    def open(self, slots: int) -> None:
        """Opens slots [0, slots) before their use; raises ResourceExhausted. Slots of other tables may move for it."""
        if slots <= self.used:
            return
        self.wanted = max(self.wanted, slots)
        if self.bounded:
            self._room.find(self, slots)
        self.used, self._indexed = slots, max(self._indexed, slots)

    def lacking(self, slots: int) -> int:
        """Returns how many bytes it takes to open slots [used, slots)."""
        index = max(slots - self._indexed, 0) * INDEX_BYTES
        return (slots - self.used) * (self.bytes_each - INDEX_BYTES) + index

    def lend(self, nbytes: int, least: int, rebuild: bool) -> None:
        """Gives back as many bytes, or some more, but keeps `least` slots and those with rows. With `rebuild` the index
        is made anew as well."""
        if self.lender is None:
            return
        kept = max(self.used - self.lender.free_slots(), least)
        wanted = max(-(-nbytes // self.bytes_each), self.used // LENT_AT_ONCE)
        slots = max(kept, self.used - wanted)
        if slots < self.used or (rebuild and self._indexed > self.used):
            self.lender.shrink(slots, rebuild)
            self.used = slots
            self._indexed = slots if rebuild else self._indexed

    def ask(self, rows: int) -> None:
        """A request wants so many at once: as many should be free when the next one comes."""
        self.usual = max(rows, self.usual - self.usual // 64)

    def resident(self, wanted: int) -> int:
        """How many rows the table should have in RAM, if it would like to have `wanted`: enough slots are free then for
        a request of usual size, and for that of the next step."""
        self.wanted = wanted
        most = self.most()
        usual = max(self.usual, self.claimed)
        # What is usual may be more than the table may have now: such a request must wait for its turn, and has a claim.
        spare = max(usual, min(2 * usual, most // 4)) if usual <= most else self.claimed
        return min(wanted, max(most - spare - most // placement.SLACK - 1, 0))

    def close(self) -> None:
        """The memory was given back."""
        self._room.leave(self)


class Room:
    """What is for slots, and the tables that share it. `nbytes` None: no bound.

    With a disk a table has a share, by what the tables want and their requests need; what it holds beyond that, free,
    goes to who asks. Without one all that is free does: rows are evicted by their number, wherever they are.
    """

    def __init__(self, nbytes: int | None, has_disk: bool) -> None:
        self._nbytes = nbytes
        self._has_disk = has_disk
        self._tables: list[Slots] = []
        self.claimed_bytes = 0
        """A new table waits for so many."""
        self.lacked = 0
        """What a new table was refused last."""

    @property
    def bounded(self) -> bool:
        """Whether there is a bound but the host's memory."""
        return self._nbytes is not None

    def resize(self, change: int) -> None:
        """More bytes, or fewer, where there is a bound."""
        if self._nbytes is not None:
            self._nbytes += change

    def join(self, row_bytes: int) -> Slots:
        """For a new table, whose memory beside its slots is taken with this. Raises ResourceExhausted, and then nothing
        has changed."""
        if self._nbytes is not None:
            tables = len(self._tables) + 1
            if tables > 1 and TABLE_BYTES * tables > self._nbytes // 2:
                raise ResourceExhausted(
                    f"a table takes {TABLE_BYTES:,} bytes before it has rows, and all of them half of {self._nbytes:,} "
                    f"that memory.ram_bytes leaves: {tables - 1} are there: raise it, drop tables or add shards"
                )
            self.find_fixed(TABLE_BYTES)
        slots = Slots(self, row_bytes)
        self._tables.append(slots)
        return slots

    def leave(self, slots: Slots) -> None:
        """A table is gone."""
        if slots in self._tables:
            self._tables.remove(slots)

    def most(self, slots: Slots) -> int:
        """How many slots a table may have: by the shares where rows can go to disk, else all that others have no rows
        in."""
        if self._nbytes is None:
            return 1 << 62
        share = (
            self._shares()[self._tables.index(slots)] if self._has_disk else self._all() - self._rows_of_others(slots)
        )
        return max(share, 0) // slots.bytes_each

    def fits(self, needed: Mapping[Slots, int]) -> bool:
        """Whether tables could have so many rows in RAM at once, were there no other request."""
        rows = {slots: max(slots.reserved, needed.get(slots, 0)) for slots in self._tables}
        return self._nbytes is None or sum(n * slots.bytes_each for slots, n in rows.items()) <= self._all()

    @property
    def unreserved(self) -> int:
        """Bytes that a new table may take for good, with the rows that are to be its own: all that no other has."""
        reserved = sum(table.reserved * table.bytes_each for table in self._tables)
        return 1 << 62 if self._nbytes is None else max(self._all() - TABLE_BYTES - reserved, 0)

    @property
    def rows_bytes(self) -> int:
        """All slots that there may be take so many; without a bound, more than there are."""
        return 1 << 62 if self._nbytes is None else self._all()

    def find(self, slots: Slots, wanted: int) -> None:
        """Finds the bytes for a table that opens slots up to `wanted`; raises ResourceExhausted."""
        if self._has_disk and wanted > self.most(slots):
            raise self._refusal(wanted, self.most(slots))
        if not self._found(slots.lacking(wanted), slots):
            slots.lend(0, slots.used, True)  # its own index may have grown for more slots than it has now
        if not self._found(slots.lacking(wanted), slots):
            most = min(self.most(slots), slots.used + max(self._left(), 0) // slots.bytes_each)
            raise self._refusal(wanted, most)

    def find_fixed(self, nbytes: int) -> None:
        """So many bytes for something else than slots; raises ResourceExhausted."""
        if not self._found(nbytes, None):
            self.lacked = nbytes + TABLE_BYTES
            raise ResourceExhausted(
                f"{nbytes:,} bytes for a new table: rows of the others have all but {max(self._left(), 0):,} of what "
                "memory.ram_bytes leaves them: "
                + ("come again when some have gone to disk" if self._has_disk else "raise it, or create tables first"),
                RETRY_S if self._has_disk else None,
            )

    def _found(self, nbytes: int, whose: Slots | None) -> bool:
        """Whether so many bytes are free, once others have given back what they must."""
        for rebuild in (False, True):
            if self._left() >= nbytes:
                return True
            shares = self._shares() if self._has_disk and whose is not None else [0] * len(self._tables)
            others = [
                (table.held - share, table, share // table.bytes_each)
                for table, share in zip(self._tables, shares, strict=True)
                if table is not whose and table.held > share
            ]
            for _, table, least in sorted(others, key=lambda other: -other[0]):
                if self._left() < nbytes:
                    table.lend(nbytes - self._left(), least, rebuild)
        return self._left() >= nbytes

    def _all(self) -> int:
        assert self._nbytes is not None
        return max(self._nbytes - TABLE_BYTES * len(self._tables), 0)

    def _left(self) -> int:
        return self._all() - sum(table.held for table in self._tables)

    def _rows_of_others(self, slots: Slots) -> int:
        others = [table for table in self._tables if table is not slots]
        return sum((t.used - (t.lender.free_slots() if t.lender else 0)) * t.bytes_each for t in others)

    def _shares(self) -> list[int]:
        """Returns each table's share in bytes: what is claimed or reserved; what its requests need, out of half of the
        rest; and of what is left in proportion to what it wants. All of it is given out."""
        room = max(self._all() - self.claimed_bytes, 0)
        firm = [max(table.claimed, table.reserved) * table.bytes_each for table in self._tables]
        rest = max(room - sum(firm), 0)
        usual = [max(t.usual * t.bytes_each - own, 0) for t, own in zip(self._tables, firm, strict=True)]
        asked = sum(usual)
        if asked > rest // 2:
            usual = [rest // 2 * each // asked for each in usual]
        floors = [own + each for own, each in zip(firm, usual, strict=True)]
        least = max(room // (16 * len(self._tables)), 1)
        wants = [max(t.wanted * t.bytes_each - own, least) for t, own in zip(self._tables, floors, strict=True)]
        return [
            own + more for own, more in zip(floors, placement.shares(max(room - sum(floors), 0), wants), strict=True)
        ]

    def _refusal(self, slots: int, most: int) -> ResourceExhausted:
        """What to say when a table cannot have so many."""
        what = f"{slots:,} rows of this table in RAM, and memory.ram_bytes leaves room for {most:,}"
        if self._has_disk:
            return ResourceExhausted(f"{what}: come again when others have gone to disk", RETRY_S)
        return ResourceExhausted(f"{what}: raise memory.ram_bytes, give the shard a disk (disk.path) or add shards")
