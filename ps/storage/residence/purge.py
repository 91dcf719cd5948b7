"""Dropped rows leave the disk: a walk over all partitions, some at a time, that also makes a new filter of ids.

A slice reads its rows and discards those that were dropped, on a thread that may wait. Nothing is written below for the
table meanwhile (`Store` sees to it), so a row of the same id cannot come down and be discarded in the old one's place.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from ps.arrays import Ids
from ps.config import PARTITIONS
from ps.errors import CorruptRow, InternalError, PsError, ResourceExhausted
from ps.runtime.memory import Memory
from ps.storage.disk.filter import IdFilter
from ps.storage.ram.cuts import Cuts
from ps.storage.residence.once import Once
from ps.storage.tier import LowerTier, Records

SLICE_PARTITIONS = PARTITIONS // 256
"""A walk takes 256 slices."""


@dataclass
class Slice:
    """Some partitions of a walk."""

    tier: LowerTier
    cuts: Cuts
    first: int
    end: int
    gone_N: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    """Ids that had a row on disk and have none now."""
    kept_N: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    whole: bool = True
    """False: there are rows that cannot be read, whose ids are in neither."""
    once: Once = field(default_factory=Once)
    error: PsError | None = None

    @property
    def wrote(self) -> bool:
        """Whether there was anything to discard."""
        return len(self.gone_N) > 0

    def write(self) -> None:
        """Takes dropped rows off, once. An error is kept for `Store.finish`. Any thread."""
        self.once.do(self._write)

    def give_up(self, error: PsError) -> None:
        """Nothing is written any more, if nothing was: `Store.finish` is told why."""
        self.once.do(lambda: setattr(self, "error", error))

    def _write(self) -> None:
        try:
            found = self._read()
            met = [self.cuts.met(records.statistics_N2) for records in found]
            gone_N = _joined([records.ids_N[met_N] for records, met_N in zip(found, met, strict=True)])
            self.tier.discard(gone_N, len(gone_N))
            self.gone_N = gone_N
            self.kept_N = _joined([records.ids_N[~met_N] for records, met_N in zip(found, met, strict=True)])
        except PsError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001  no memory, say: it is for the next walk
            self.error = InternalError(f"dropped rows could not be taken off the disk: {error!r}")

    def _read(self) -> Sequence[Records]:
        try:
            return self.tier.partitions(self.first, self.end)
        except CorruptRow as error:
            self.whole = False
            return error.sound


class Purge:
    """The walks over one table on disk."""

    def __init__(self, tier: LowerTier, memory: Memory) -> None:
        self._tier = tier
        self._memory = memory
        self._next = PARTITIONS
        self._again = False
        self.filter: IdFilter | None = None
        """The new filter, while a walk goes on: it has the ids that were kept, and those written below since then."""

    @property
    def pending(self) -> bool:
        """Whether a walk goes on, or is to be made."""
        return self._again or self._next < PARTITIONS

    def start(self) -> None:
        """Notes that rows were dropped: a walk is to be made, after the one that goes on."""
        self._again = True

    def slice(self, cuts: Cuts) -> Slice | None:
        """Returns the next slice; None when nothing is to be done."""
        if self._next >= PARTITIONS:
            if not self._again or not len(self._tier):
                return None
            self._again, self._next = False, 0
            with suppress(ResourceExhausted):  # the old one goes on then
                self.filter = IdFilter(len(self._tier), self._memory)
        end = min(self._next + SLICE_PARTITIONS, PARTITIONS)
        return Slice(self._tier, cuts.copy(), self._next, end)

    def done(self, slice_: Slice) -> IdFilter | None:
        """Notes that a slice was written. Returns the new filter at the end of the walk, unless there were rows that
        could not be read."""
        self._next = slice_.end
        if slice_.error is not None or not slice_.whole:
            self._again = self._again or slice_.error is not None
            self.close()
        if self.filter is not None:
            self.filter.add(slice_.kept_N)
        if self._next < PARTITIONS:
            return None
        made, self.filter = self.filter, None
        return made

    def close(self) -> None:
        """Gives up the new filter."""
        if self.filter is not None:
            self.filter.close()
            self.filter = None


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate([np.empty(0, np.int64), *parts])
