"""Numbers that a table's rows could not hold: rows that an update has left infinite or NaN, and values of rows of half
precision that were cut to 65504. They are counted and logged. The engine thread is the only caller.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ps.arrays import Slots
from ps.storage.ram.arena import Arena
from ps.storage.ram.rows import Updated
from ps.table.counters import Counters

log = logging.getLogger(__name__)

LOOK_ROWS = 4096
"""How many rows are looked at in one go for the first that is not finite."""


class Overflows:
    """Counts the overflows of one table."""

    def __init__(self, table: str, ram: Arena, counts: Counters) -> None:
        self._table = table
        self._ram = ram
        self._counts = counts
        self._said = 0

    def update_ended(self, outcomes: Sequence[Updated], slots_N: Slots) -> None:
        """Counts the overflows of an update of these slots; logs the first overflow, and each time that their number
        has doubled."""
        self._counts.rows_clamped += sum(part.clamped for part in outcomes)
        clamped = self._counts.rows_clamped
        if clamped.bit_length() > self._said:
            self._said = clamped.bit_length()
            log.warning(
                "table %s: %s of half precision so far had values beyond 65504, which are that now: lower the "
                "learning rate, clip gradients, or keep the table in float32",
                self._table,
                _counted(clamped, "row"),
            )
        if any(part.broken for part in outcomes):
            self._tell_nonfinite(outcomes[0].broken, slots_N)

    def _tell_nonfinite(self, slices: int, slots_N: Slots) -> None:
        """Counts and logs what is not finite: rows, and `slices` of the cores of a tensor-train table."""
        rows, which = self._look(slots_N)
        before = self._counts.rows_nonfinite
        now = self._counts.rows_nonfinite = before + rows + slices
        if now.bit_length() > before.bit_length():
            log.error(
                "table %s: a push has left infinity or NaN in %s; %d so far. Rows read so from now on: remove or "
                "assign them, lower the learning rate, clip gradients",
                self._table,
                f"{_counted(rows, 'row')}, {which}" if rows else f"{_counted(slices, 'slice')} of the cores",
                now,
            )

    def _look(self, slots_N: Slots) -> tuple[int, str]:
        """Returns how many of the rows are not finite, and what to say of the first."""
        broken, first, rows = 0, "", self._ram.rows
        for start in range(0, len(slots_N), LOOK_ROWS):
            for records in self._ram.records(slots_N[start : start + LOOK_ROWS]):
                full_NW = np.ascontiguousarray(rows.as_full(records.rows_NB)).view(np.float32)
                bad_N = np.flatnonzero(~np.isfinite(full_NW).all(axis=1))
                if len(bad_N) and not broken:
                    sound = np.isfinite(rows.values(records.rows_NB)[bad_N[0]]).all()
                    first = f"the first of id {records.ids_N[bad_N[0]]}, in its {'state' if sound else 'value'}"
                broken += len(bad_N)
        return broken, first


def _counted(n: int, what: str) -> str:
    """Returns the number and the noun, in the plural where there are more."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
