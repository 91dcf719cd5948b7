"""The hot tier: rows in RAM, float32, value and optimizer state side by side.

An arena of floats. For now its score is a frequency, the occurrences that pushes counted: an integer, which stops at
the largest uint32, kept in the bits of the score. Records carry it as a number.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ps.kernels.rows import add_counts
from ps.storage.arena import Arena, Slots
from ps.storage.tier import Ids, Records, RowLayout

__all__ = ["HotTier", "Ids", "Slots"]

MOST = float(np.nextafter(np.float32(2**32), np.float32(0)))
"""The largest float32 that a frequency holds."""


class HotTier(Arena):
    """Rows by id, in one growing arena."""

    def __init__(self, layout: RowLayout) -> None:
        super().__init__(layout.width, np.float32)
        self.layout = layout

    def count(self, slots_N: Slots, counts_N: npt.NDArray[np.uint32], push: int) -> None:
        """Adds occurrences to the rows' frequency (saturating) and notes the push that they came with."""
        add_counts(self._frequency_S, slots_N, counts_N)
        self.stamps_S[slots_N] = push & 0xFFFF_FFFF

    def frequency(self, slots_N: Slots) -> npt.NDArray[np.uint32]:
        """Occurrences counted by pushes."""
        counts_N: npt.NDArray[np.uint32] = self._frequency_S[slots_N]
        return counts_N

    def records(self, slots_N: Slots) -> Records:
        """Copies of the rows in these slots."""
        return replace(super().records(slots_N), scores_N=self.frequency(slots_N).astype(np.float32))

    def write(self, records: Records) -> Slots:
        """Takes rows in, also over older ones of the same id; a score becomes the nearest frequency."""
        slots_N = super().write(records)
        self._frequency_S[slots_N] = np.clip(np.nan_to_num(np.rint(records.scores_N)), 0, MOST).astype(np.uint32)
        return slots_N

    @property
    def _frequency_S(self) -> npt.NDArray[np.uint32]:  # noqa: N802
        return self.scores_S.view(np.uint32)
