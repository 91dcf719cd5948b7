"""What lies below RAM for one table: the tier, the filter of the ids that may have a row there, and the walks that take
dropped rows off it. A table without a disk has a `Below` too, that is always empty.

Owned by the engine thread; a `Slice` is written by another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from ps.arrays import Flags, Ids
from ps.kept import KeptState, joined, restored
from ps.kernels.ranking import score
from ps.kernels.ranking.score import Marks
from ps.kernels.rows.records import HEADER_BYTES, KEY_BYTES
from ps.runtime.memory import Memory
from ps.storage.disk.filter import IdFilter
from ps.storage.ram.cuts import Cuts
from ps.storage.residence.purge import Purge, Slice
from ps.storage.tier import LowerTier, Records, piece, where

TAKEN_ROWS = 1 << 13
"""How many rows `take_in` writes at once."""


class Below:
    """The rows of one table that are not in RAM, or not there alone."""

    def __init__(self, tier: LowerTier | None, memory: Memory) -> None:
        """`memory`: what filters take is taken from. Raises ResourceExhausted."""
        self._tier = tier
        self._filter = IdFilter(memory=memory) if tier is not None else None
        self._purge = Purge(tier, memory) if tier is not None else None

    @property
    def exists(self) -> bool:
        """Whether rows can go down."""
        return self._tier is not None

    @property
    def tier(self) -> LowerTier:
        """The tier, where there is one."""
        assert self._tier is not None
        return self._tier

    def __len__(self) -> int:
        return 0 if self._tier is None else len(self._tier)

    def may_have(self, ids_N: Ids) -> Flags:
        """Returns which of the ids may have a row here."""
        return np.zeros(len(ids_N), np.bool_) if self._filter is None else self._filter.may_contain(ids_N)

    def expect(self, ids_N: Ids) -> None:
        """Notes that rows of these ids will be written here."""
        for filter_ in self._filters():
            filter_.add(ids_N)

    def take_in(self, records: Records, marks_N: Marks) -> None:
        """Writes rows here that have these marks in RAM, unless they are here as they are. The caller waits for the
        disk. Raises DiskFull and DiskError."""
        changed_N = marks_N & (score.COPIED | score.DIRTY) != score.COPIED
        for copied in (False, True):  # older forms are written over
            chosen = where(records, changed_N & ((marks_N & score.COPIED != 0) == copied))
            for start in range(0, len(chosen), TAKEN_ROWS):
                some = piece(chosen, start, start + TAKEN_ROWS)
                self.expect(some.ids_N)
                self.tier.write(some, len(some) if copied else 0)

    def discard(self, ids_N: Ids) -> None:
        """Drops the rows of these ids, which are here. Raises DiskFull and DiskError, and has changed nothing then."""
        if self._tier is not None and len(ids_N):
            self._tier.discard(ids_N, len(ids_N))

    def partitions(self, first: int, end: int) -> list[Records]:
        """Returns the rows of partitions [first, end). The caller waits for the disk. Raises DiskError, CorruptRow."""
        return self._tier.partitions(first, end) if self._tier is not None and len(self._tier) else []

    def held(self, records: Records) -> tuple[Flags, Flags]:
        """Returns which of these rows are here in any form, and which as they are or newer: an older form never
        has the higher (stamp, score). Those that may be here are read: the caller waits for the disk. Raises DiskError
        and CorruptRow."""
        here_N, as_new_N = np.zeros(len(records), np.bool_), np.zeros(len(records), np.bool_)
        maybe_N = np.flatnonzero(self.may_have(records.ids_N))
        for found in self.tier.read(records.ids_N[maybe_N]) if len(maybe_N) else ():
            order_N = np.argsort(found.ids_N)
            at_N = np.minimum(np.searchsorted(found.ids_N, records.ids_N[maybe_N], sorter=order_N), len(found) - 1)
            at_N = order_N[at_N]
            is_N = found.ids_N[at_N] == records.ids_N[maybe_N]
            here_N[maybe_N] |= is_N
            as_new_N[maybe_N] |= is_N & (_ages(found)[at_N] >= _ages(records)[maybe_N])
        return here_N, as_new_N

    def state(self) -> KeptState:
        """See `ps.kept`. How many rows there are is the disk's to say; which have left it is found by a new walk."""
        if self._filter is None or self._purge is None:
            return {"filter": None}
        return {"purging": int(self._purge.pending), **joined({"filter": self._filter})}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`; the tier has the rows. Raises ResourceExhausted."""
        if self._filter is not None and len(self):
            restored({"filter": self._filter}, state)
            if state["purging"]:
                self.start_purge()

    # dropped rows leave

    def start_purge(self) -> None:
        """Notes that rows were dropped, which are to be taken off."""
        if self._purge is not None:
            self._purge.start()

    def next_slice(self, cuts: Cuts) -> Slice | None:
        """Returns the next part of the walk that takes off rows that these cuts have met; None if nothing is due."""
        return self._purge.slice(cuts) if self._purge is not None else None

    def purged(self, slice_: Slice) -> None:
        """Notes that a slice was written. At the end of the walk its filter takes the place of the old one."""
        assert self._purge is not None
        made = self._purge.done(slice_)
        if made is not None and self._filter is not None:
            self._filter.close()
            self._filter = made

    # numbers

    @property
    def nbytes(self) -> int:
        """Bytes of RAM that the filters take."""
        return sum(filter_.nbytes for filter_ in self._filters())

    def stats(self, row_bytes: int) -> dict[str, int]:
        """Returns how many rows are here, and how much has come and gone; empty without a disk."""
        if self._tier is None:
            return {}
        nbytes = len(self._tier) * (HEADER_BYTES + KEY_BYTES + row_bytes)
        return {"rows": len(self._tier), "bytes": nbytes, **asdict(self._tier.traffic)}

    def close(self) -> None:
        """Gives the filters back; the tier is for its owner to close or drop."""
        for filter_ in self._filters():
            filter_.close()

    def _filters(self) -> Iterator[IdFilter]:
        if self._filter is not None:
            yield self._filter
        if self._purge is not None and self._purge.filter is not None:
            yield self._purge.filter


def _ages(records: Records) -> npt.NDArray[np.uint64]:
    """Returns a number for each row that is higher for a newer form of it."""
    statistics_N2 = records.statistics_N2.astype(np.uint64)
    ages_N: npt.NDArray[np.uint64] = statistics_N2[:, 1] << np.uint64(32) | statistics_N2[:, 0]
    return ages_N
