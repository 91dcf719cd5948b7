"""Numbers that a table's rows could not hold: rows that an update has left infinite or NaN, and values of rows of half
precision that were cut to 65504. Counted, and said in the log. The engine thread's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ps.arrays import Slots
from ps.storage.ram.arena import Arena
from ps.storage.ram.rows import Updated

log = logging.getLogger(__name__)

LOOK_ROWS = 4096
"""Looked at in one go for the first that is not finite."""


class Overflows:
    """Counts those of one table."""

    def __init__(self, table: str, ram: Arena) -> None:
        self._table = table
        self._ram = ram
        self._clamped = self._said = 0
        self.nonfinite = 0
        """Rows that an update has left infinite or NaN, each time that one has."""

    @property
    def clamped(self) -> int:
        """Rows of half precision that were written with more than they hold, each time."""
        return self._clamped + int(getattr(self._ram.rows, "clamped", 0))

    def update_ended(self, outcomes: Sequence[Updated], slots_N: Slots) -> None:
        """Counts what an update of these slots came to; says it at the first, and each time there are twice as many."""
        self._clamped += sum(part.clamped for part in outcomes)
        if self.clamped.bit_length() > self._said:
            self._said = self.clamped.bit_length()
            log.warning(
                "table %s: %s of half precision so far had values beyond 65504, which are that now: lower the "
                "learning rate, clip gradients, or keep the table in float32",
                self._table,
                _counted(self.clamped, "row"),
            )
        if any(part.broken for part in outcomes):
            self._tell_nonfinite(outcomes[0].broken, slots_N)

    def _tell_nonfinite(self, slices: int, slots_N: Slots) -> None:
        """Counts and says what is not finite: rows, and `slices` of the cores of a tensor-train table."""
        rows, which = self._look(slots_N)
        before = self.nonfinite
        self.nonfinite += rows + slices
        if self.nonfinite.bit_length() > before.bit_length():
            log.error(
                "table %s: a push has left infinity or NaN in %s; %d so far. Rows read so from now on: remove or "
                "assign them, lower the learning rate, clip gradients",
                self._table,
                f"{_counted(rows, 'row')}, {which}" if rows else f"{_counted(slices, 'slice')} of the cores",
                self.nonfinite,
            )

    def _look(self, slots_N: Slots) -> tuple[int, str]:
        """How many of the rows are not finite, and what to say of the first."""
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
    """The number and the noun, in the plural where there are more."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
