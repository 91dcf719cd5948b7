"""A write of one table in three parts: planned, made, settled.

Planning reserves all that the write needs; it may fail, and then nothing has changed that a reader could see. Making
changes the rows, and may not fail. Settling is what a table decides after each write: which rows are dropped, and which
have which precision. So a write of several tables is planned for all of them before any is changed, and it is applied
and recorded before anything is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ps.arrays import Flags


@dataclass(frozen=True)
class Change:
    """A write that is planned. It must be the next change of the table."""

    make: Callable[[], None]
    """Changes the rows."""
    settle: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """The work that follows the change, by name and in this order: each part is tried, even if the one before
    failed."""
    undo: Callable[[], None] = lambda: None
    """Called instead of `make`: takes back the rows that were created for the write."""
    existed_N: Flags = field(default_factory=lambda: np.empty(0, np.bool_))
    """Which rows existed before an explicit write; empty for a push."""

    def carry_out(self) -> Flags:
        """Makes and settles the change, if it is the only one; returns which rows existed."""
        self.make()
        for part in self.settle.values():
            part()
        return self.existed_N
