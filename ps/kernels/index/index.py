"""The id index: int64 -> slot. Memory, checks and errors; `ps.kernels.index.segments` has the structure and its
kernels.

It grows by one small segment at a time, in place: no lookup ever waits for a table to be rehashed. An id takes about 20
bytes. Every int64 is a legal id. Ids chosen so that their hashes agree in 24 bits can defeat splitting; then insertion
ends with an error instead of growing without end. With a secret nobody can choose them.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Ids, Slots
from ps.errors import LengthMismatch, ResourceExhausted
from ps.kernels.index import segments as kernels
from ps.kernels.index.segments import (
    COUNT,
    CREATED,
    DEPTH,
    LINE_BYTES,
    LINES,
    MAX_DEPTH,
    MAX_FILL,
    PER_LINE,
    SEGMENTS,
    SPLITS,
    Segments,
)
from ps.runtime.host import host_ram_bytes
from ps.runtime.memory import Memory, ReservedArray

MAX_SLOT = 2**32 - 2
"""A slot is stored as slot + 1 in 32 bits."""
_NO_SECRET = np.uint64(0)
SPARE_SEGMENTS = 2
"""Asked for ahead of need."""


class IdIndex:
    """int64 -> slot in [0, MAX_SLOT]. One thread. Arrays given are int64 [n] and contiguous."""

    _segments: Segments

    def __init__(
        self, max_ids: int = MAX_SLOT + 1, memory: Memory | None = None, secret: np.uint64 = _NO_SECRET
    ) -> None:
        """`secret`: mixed into the hashes."""
        self._directory = ReservedArray((), np.int32, 1 << MAX_DEPTH, memory)
        # Segments are half full or more; a few of an index that has shrunk may be emptier.
        max_segments = min(4 * max_ids // MAX_FILL + 64, host_ram_bytes() // (LINES * LINE_BYTES))
        self._lines = ReservedArray((LINES * 8,), np.int64, max_segments, memory)
        self._depths = ReservedArray((), np.uint8, self._lines.max_rows, memory)
        self._fills = ReservedArray((), np.int32, self._lines.max_rows, memory)
        self._state = np.array([0, 1, 0, 0, 0, secret.astype(np.int64)], np.int64)
        self._ensured = 0
        self._ensure(1)

    def __len__(self) -> int:
        return int(self._state[COUNT])

    @property
    def splits(self) -> int:
        """Segments split so far."""
        return int(self._state[SPLITS])

    @property
    def committed_bytes(self) -> int:
        """Bytes of the pages that segments and directory lie on, those asked for ahead too."""
        return sum(part.committed_bytes for part in (self._lines, self._depths, self._fills)) + self._directory_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of segments and directory in use."""
        return int(self._state[SEGMENTS]) * (LINES * LINE_BYTES + 5) + self._directory_bytes

    def find(self, ids_N: Ids, slots_N: Slots) -> None:
        """slots[i] = the slot of ids[i], or -1."""
        _check_length(ids_N, slots_N)
        kernels.find(self._segments, ids_N, slots_N)

    def find_or_insert(self, ids_N: Ids, new_slots_N: Slots, slots_N: Slots) -> int:
        """slots[i] = the slot of ids[i]; an absent id takes the next of new_slots, in order of first appearance.

        `new_slots_N` has as many slots as there are ids, each in [0, MAX_SLOT] and not in the index; those not needed
        are left. Returns how many were taken. Raises LengthMismatch, and ResourceExhausted when memory is at its end or
        for ids chosen to collide: then the index has the ids that it had before, and slots_N is undefined.
        """
        _check_length(ids_N, slots_N)
        _check_length(ids_N, new_slots_N)
        self._state[CREATED] = 0
        reached = 0
        try:
            while True:
                refused = self._try_ensure(int(self._state[SEGMENTS]) + len(ids_N) // MAX_FILL + SPARE_SEGMENTS)
                reached = kernels.find_or_insert(self._segments, self._ensured, ids_N, new_slots_N, slots_N, reached)
                if reached == len(ids_N):
                    return int(self._state[CREATED])
                if refused is not None:
                    raise ResourceExhausted(str(refused), refused.retry_after_s)
                if self._state[SEGMENTS] < self._ensured:
                    raise ResourceExhausted(
                        f"no room for id {ids_N[reached]}: its hash agrees with those of {MAX_FILL:,} other ids, which "
                        "does not happen by chance; let whoever makes the ids hash them with a secret first"
                    )
        except ResourceExhausted:
            self._undo(ids_N[:reached], new_slots_N[: self._state[CREATED]])
            raise

    def erase(self, ids_N: Ids, slots_N: Slots) -> int:
        """slots[i] = the slot that ids[i] had, or -1 (also where an id is repeated); returns how many were erased."""
        _check_length(ids_N, slots_N)
        return int(kernels.erase(self._segments, ids_N, slots_N))

    def reslot(self, ids_N: Ids, slots_N: Slots) -> None:
        """Ids that are here have those slots from now on."""
        _check_length(ids_N, slots_N)
        kernels.reslot(self._segments, ids_N, slots_N)

    def rebuild(self, ids_N: Ids, slots_N: Slots) -> None:
        """Builds the index again of the same ids, all of them, with those slots: it gives back what it does not need.

        Takes no memory. Segments are split where more ids than fit fall into one: so each that it needs now is there.
        """
        _check_length(ids_N, slots_N)
        have = self._ensured
        self._lines.array[: int(self._state[SEGMENTS])] = 0
        for part in (self._directory, self._depths, self._fills):
            part.array[0] = 0
        self._state[:SPLITS] = [0, 1, 0, 0]  # what was counted, and the secret, stay
        found_N = np.empty(len(ids_N), np.int64)
        reached = kernels.find_or_insert(self._segments, have, ids_N, slots_N, found_N, 0)
        assert reached == len(ids_N), "an index built again needs more segments than it had"
        kept = min(int(self._state[SEGMENTS]) + SPARE_SEGMENTS, have)
        for part in (self._lines, self._depths, self._fills):
            part.shrink(kept)
        self._ensured = kept

    def items(self) -> tuple[Ids, Slots]:
        """All ids and their slots, in no particular order."""
        lines = int(self._state[SEGMENTS]) * LINES
        ids = self._segments.ids[: lines * 8].reshape(lines, 8)[:, :PER_LINE]
        stored = self._segments.slots[: lines * 16].reshape(lines, 16)[:, 2 * PER_LINE : 3 * PER_LINE]
        taken = stored != 0
        return ids[taken], stored[taken].astype(np.int64) - 1

    def close(self) -> None:
        """Gives the memory back. May be called again; any other use after it is an AttributeError."""
        if hasattr(self, "_segments"):
            del self._segments  # not emptied: a kernel on empty arrays would read beyond them
        for part in (self._directory, self._lines, self._depths, self._fills):
            part.close()

    @property
    def _directory_bytes(self) -> int:
        return 4 << int(self._state[DEPTH])

    def _views(self) -> Segments:
        ids = self._lines.array.reshape(-1)
        return Segments(
            self._directory.array, ids, ids.view(np.uint32), self._depths.array, self._fills.array, self._state
        )

    def _try_ensure(self, segments: int) -> ResourceExhausted | None:
        """The error if memory is at its end: what is there may do."""
        try:
            self._ensure(segments)
        except ResourceExhausted as error:
            return error
        return None

    def _ensure(self, segments: int) -> None:
        if segments > self._ensured:
            if hasattr(self, "_segments"):
                del self._segments  # views: an array that moves must not be looked at
            try:
                for part in (self._lines, self._depths, self._fills):
                    part.ensure(segments)
            finally:
                self._segments = self._views()
            self._ensured = segments  # not before all have it: the kernel writes up to here without asking

    def _undo(self, ids_N: Ids, created_N: Slots) -> None:
        """Takes the ids out again that a failed insertion has put in; segments that were split stay split."""
        slots_N = np.empty(len(ids_N), np.int64)
        kernels.find(self._segments, ids_N, slots_N)
        added_N = ids_N[np.isin(slots_N, created_N)]
        kernels.erase(self._segments, added_N, slots_N)


def _check_length(ids_N: Ids, others_N: Slots) -> None:
    """The kernels do not look: a shorter array would be overrun."""
    if len(others_N) < len(ids_N):
        raise LengthMismatch(f"{len(ids_N)} ids, but room for {len(others_N)} slots")
