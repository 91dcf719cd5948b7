"""Decides which tier a row belongs on: how much room a table has in RAM, how many of its rows stay there, and how many
go to disk at once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

SLACK = 64
"""Rows are not moved for an excess of less than 1/SLACK of the rows in RAM, because small slices cost as much as large
ones."""
LEAST = 16
"""A table counts as wanting at least this part of an equal share of the room."""


def resident_rows(total: int, swap_fraction: float) -> int:
    """Returns how many of a table's rows belong in RAM."""
    return total - int(total * swap_fraction)


def target_rows(wanted: int, most: int, usual: int, claimed: int) -> int:
    """Returns how many rows a table should have in RAM that wants `wanted` and may have `most`, so that slots are free
    for a request of usual size, and for that of the next step."""
    needed = max(usual, claimed)
    # What is usual may be more than the table may have now: such a request must wait for its turn, and has a claim.
    spare = max(needed, min(2 * needed, most // 4)) if needed <= most else claimed
    return min(wanted, max(most - spare - most // SLACK - 1, 0))


def slice_rows(excess: int, resident: int, row_bytes: int, slice_bytes: int) -> int:
    """Returns how many rows to move to disk now; 0 for none."""
    most = max(slice_bytes // row_bytes, 1)
    return min(excess, most) if excess > min(resident // SLACK, most) else 0


class _Demand(NamedTuple):
    """The bytes that one table demands, in the order in which they are granted."""

    firm: int
    """Claimed by a request that waits, or reserved for good."""
    usual: int
    """What the table's requests usually need beyond `firm`."""
    wanted: int
    """What the table would like to have beyond both."""


_NOTHING = _Demand(0, 0, 0)


class Shares:
    """Divides a room among tables. All of it is granted, but for what rounding leaves, in this order:

    - what is firm;
    - what requests usually need: all of it, or half of the rest of the room in proportion to it where it is more;
    - what is left then, in proportion to what each table wants beyond that.

    The sums over all tables are kept: a table that wants something else costs the same however many others there are.
    """

    def __init__(self) -> None:
        self._demands: dict[Hashable, _Demand] = {}
        self._firm = self._usual = self._wants = 0
        self._room = 0
        self._least = 1

    def set(self, table: Hashable, firm: int, usual: int, wanted: int) -> None:
        """Sets the bytes that a table has for certain, that its requests need at once, and that it wants in all."""
        needed = max(usual - firm, 0)
        self._replace(table, _Demand(firm, needed, wanted - firm - needed))

    def remove(self, table: Hashable) -> None:
        """Forgets a table."""
        if table in self._demands:
            self._replace(table, _NOTHING)
            del self._demands[table]
            self._set_least()

    def of(self, table: Hashable, room: int) -> int:
        """Returns the bytes of the room that a table may have."""
        self._set_room(room)
        demand = self._demands[table]
        rest = max(room - self._firm, 0)
        usual, needed = demand.usual, self._usual
        if needed > rest // 2:
            usual, needed = rest // 2 * usual // needed, rest // 2
        return demand.firm + usual + (rest - needed) * self._want(demand) // self._wants

    def _want(self, demand: _Demand) -> int:
        return max(demand.wanted, self._least)

    def _replace(self, table: Hashable, demand: _Demand) -> None:
        before = self._demands.get(table)
        self._demands[table] = demand
        self._wants += self._want(demand)
        if before is None:
            self._set_least()
        else:
            self._wants -= self._want(before)
        self._firm += demand.firm - (before or _NOTHING).firm
        self._usual += demand.usual - (before or _NOTHING).usual

    def _set_room(self, room: int) -> None:
        if room != self._room:
            self._room = room
            self._set_least()

    def _set_least(self) -> None:
        """Computes the least demand again, because the room or the number of tables has changed, which is rare."""
        self._least = max(self._room // (LEAST * max(len(self._demands), 1)), 1)
        self._wants = sum(map(self._want, self._demands.values()))
