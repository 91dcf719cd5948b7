"""The id index: int64 -> slot, by extendible hashing (Fagin et al. 1979) with staggered splits.

    hash of id   | 12 bits: partition | .. | 10 bits: line | 32 bits: x |
    directory    x, skewed, its top `depth` bits -> segment
    segment      1024 lines of 64 bytes
    line         5 ids (int64), 5 slots (uint32, stored as slot + 1, 0 = empty), 4 bytes spare

A lookup compares the entries of its line and goes on to the next only if the line is full: one cache miss, where ids and
slots in arrays of their own would be two.

A segment that is 85 % full splits in two: about 30 microseconds, and the only work that growth ever does at once. Uniform
hashing would fill all segments alike and split them all in the same push, so x is skewed as in spiral storage (Martin
1979): y = x(x+2)/3 has twice the density at one end as at the other, loads are spread between half full and full at any
time, and splits come one by one. The mean load is about 0.6: 21 bytes an id.

Every int64 is a legal id: emptiness is told by the slot. Ids chosen to share all 32 bits of x could defeat splitting; then
insertion stops with an error instead of growing without end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from ps.errors import ResourceExhausted
from ps.kernels.hashing import mix64
from ps.kernels.prefetch import AHEAD, prefetch
from ps.memory import ReservedArray

Ids = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]
Keys = npt.NDArray[np.int64]
Stored = npt.NDArray[np.uint32]
Int32s = npt.NDArray[np.int32]

LINES = 1024
PER_LINE = 5
ENTRIES = LINES * PER_LINE
LINE_BYTES = 64
MAX_FILL = ENTRIES * 85 // 100
MAX_DEPTH = 24
BLOCK = 32
DEPTH, SEGMENTS, COUNT, CREATED, SPLITS = 0, 1, 2, 3, 4
"""Positions in the state vector."""

_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_LINE_MASK = np.uint64(LINES - 1)
_SCALE = 2.0**MAX_DEPTH


@njit(cache=True, nogil=True, inline="always")
def _skew(hash_: np.uint64) -> np.int64:
    """The low 32 bits as MAX_DEPTH bits of y = x(x+2)/3."""
    x = np.float64(np.int64(hash_ & _LOW32)) * 2.0**-32
    return np.int64(x * (x + 2.0) * (_SCALE / 3.0))


@njit(cache=True, nogil=True, inline="always")
def _line(hash_: np.uint64) -> np.int64:
    """The line, within its segment, at which the probe for an id starts."""
    return np.int64((hash_ >> _S32) & _LINE_MASK)


@njit(cache=True, nogil=True, inline="always")
def _next(entry: np.int64) -> np.int64:
    return entry + 1 if entry + 1 < ENTRIES else 0


@njit(cache=True, nogil=True, inline="always")
def _key_at(segment: np.int64, entry: np.int64) -> np.int64:
    """Where the id of an entry is in the flat int64 view: 8 to a line."""
    return (segment * LINES + entry // PER_LINE) * 8 + entry % PER_LINE


@njit(cache=True, nogil=True, inline="always")
def _slot_at(segment: np.int64, entry: np.int64) -> np.int64:
    """Where the slot of an entry is in the flat uint32 view: 16 to a line, behind the ids."""
    return (segment * LINES + entry // PER_LINE) * 16 + 2 * PER_LINE + entry % PER_LINE


@njit(cache=True, nogil=True)
def find(directory: Int32s, keys: Keys, stored: Stored, depth: int, ids_N: Ids, slots_N: Slots) -> None:
    """slots[i] = the slot of ids[i], or -1. In blocks: first all lines of a block are asked for, then all are compared, so
    that the cache misses of a block overlap (2.5 times as fast as one id after the other)."""
    shift = MAX_DEPTH - depth
    lines = np.empty(BLOCK, np.int64)
    for start in range(0, len(ids_N), BLOCK):
        size = min(BLOCK, len(ids_N) - start)
        for k in range(size):
            hash_ = mix64(np.uint64(ids_N[start + k]))
            segment = np.int64(directory[_skew(hash_) >> shift])
            lines[k] = segment * LINES + _line(hash_)
            prefetch(keys, lines[k] * 8)
        for k in range(size):
            slots_N[start + k] = _probe(keys, stored, lines[k], ids_N[start + k])


@njit(cache=True, nogil=True, inline="always")
def _probe(keys: Keys, stored: Stored, line: np.int64, id_: np.int64) -> np.int64:
    """All entries of a line are compared, without a branch that the processor could guess wrong. Entries of a line are
    filled from the front, so a last entry that is empty ends the probe."""
    while True:
        slot = np.uint32(0)
        for k in range(PER_LINE):
            slot |= stored[line * 16 + 2 * PER_LINE + k] if keys[line * 8 + k] == id_ else np.uint32(0)
        if slot or not stored[line * 16 + 3 * PER_LINE - 1]:
            return np.int64(slot) - 1
        line = _next_line(line)


@njit(cache=True, nogil=True, inline="always")
def _next_line(line: np.int64) -> np.int64:
    """The line after, around the end of the segment."""
    return line + 1 if (line + 1) & (LINES - 1) else line + 1 - LINES


@njit(cache=True, nogil=True, inline="always")
def _append(keys: Keys, stored: Stored, line: np.int64, id_: np.int64, slot: np.int64) -> None:
    """Puts an absent id into the first empty entry from `line` on."""
    while stored[line * 16 + 3 * PER_LINE - 1]:
        line = _next_line(line)
    for k in range(PER_LINE):
        if not stored[line * 16 + 2 * PER_LINE + k]:
            keys[line * 8 + k] = id_
            stored[line * 16 + 2 * PER_LINE + k] = np.uint32(slot + 1)
            return


@njit(cache=True, nogil=True)
def _split(
    directory: Int32s,
    keys: Keys,
    stored: Stored,
    depths: npt.NDArray[np.uint8],
    fills: Int32s,
    state: npt.NDArray[np.int64],
    segment: int,
    y: int,
) -> None:
    """Moves the upper half of a segment's range to a new segment; doubles the directory first if it must."""
    local = np.int64(depths[segment])
    if local == state[DEPTH]:
        for i in range((1 << state[DEPTH]) - 1, -1, -1):
            directory[2 * i] = directory[2 * i + 1] = directory[i]
        state[DEPTH] += 1
    new = state[SEGMENTS]
    state[SEGMENTS] += 1
    state[SPLITS] += 1
    depths[segment] = depths[new] = np.uint8(local + 1)
    run = 1 << (state[DEPTH] - local)  # directory entries of the segment
    first = ((y >> (MAX_DEPTH - state[DEPTH])) // run) * run
    directory[first + run // 2 : first + run] = new

    old_keys = keys[segment * LINES * 8 : (segment + 1) * LINES * 8].copy()
    old_stored = stored[segment * LINES * 16 : (segment + 1) * LINES * 16].copy()
    stored[segment * LINES * 16 : (segment + 1) * LINES * 16] = np.uint32(0)
    fills[segment] = fills[new] = 0
    upper = MAX_DEPTH - local - 1
    for line in range(LINES):
        for k in range(PER_LINE):
            slot = old_stored[line * 16 + 2 * PER_LINE + k]
            if slot:
                id_ = old_keys[line * 8 + k]
                hash_ = mix64(np.uint64(id_))
                target = new if (_skew(hash_) >> upper) & 1 else segment
                _append(keys, stored, target * LINES + _line(hash_), id_, np.int64(slot) - 1)
                fills[target] += 1


@njit(cache=True, nogil=True)
def find_or_insert(
    directory: Int32s,
    keys: Keys,
    stored: Stored,
    depths: npt.NDArray[np.uint8],
    fills: Int32s,
    state: npt.NDArray[np.int64],
    max_segments: int,
    ids_N: Ids,
    new_slots_N: Slots,
    slots_N: Slots,
    start: int,
) -> int:
    """From position `start` on: slots[i] = the slot of ids[i], the next of new_slots if there is none.

    Returns the position reached: before the end when `max_segments` are in use and one more is needed.
    """
    for i in range(start, len(ids_N)):
        if i + AHEAD < len(ids_N):
            ahead = mix64(np.uint64(ids_N[i + AHEAD]))
            segment = np.int64(directory[_skew(ahead) >> (MAX_DEPTH - state[DEPTH])])
            prefetch(keys, (segment * LINES + _line(ahead)) * 8)
        id_ = ids_N[i]
        hash_ = mix64(np.uint64(id_))
        y = _skew(hash_)
        while True:
            segment = np.int64(directory[y >> (MAX_DEPTH - state[DEPTH])])
            line = segment * LINES + _line(hash_)
            slots_N[i] = _probe(keys, stored, line, id_)
            if slots_N[i] >= 0:
                break
            if fills[segment] < MAX_FILL:
                slot = new_slots_N[state[CREATED]]
                _append(keys, stored, line, id_, slot)
                fills[segment] += 1
                state[CREATED] += 1
                state[COUNT] += 1
                slots_N[i] = slot
                break
            if state[SEGMENTS] == max_segments or depths[segment] == MAX_DEPTH:
                return i
            _split(directory, keys, stored, depths, fills, state, segment, y)
    return len(ids_N)


@njit(cache=True, nogil=True)
def erase(
    directory: Int32s, keys: Keys, stored: Stored, fills: Int32s, depth: int, ids_N: Ids, slots_N: Slots
) -> int:
    """slots[i] = the slot that ids[i] had, or -1; returns how many were erased. What follows in the probe is moved up, so
    there are no tombstones."""
    erased = 0
    for i in range(len(ids_N)):
        hash_ = mix64(np.uint64(ids_N[i]))
        segment = np.int64(directory[_skew(hash_) >> (MAX_DEPTH - depth)])
        hole = _line(hash_) * PER_LINE
        while stored[_slot_at(segment, hole)] and keys[_key_at(segment, hole)] != ids_N[i]:
            hole = _next(hole)
        slots_N[i] = np.int64(stored[_slot_at(segment, hole)]) - 1
        if slots_N[i] < 0:
            continue
        erased += 1
        fills[segment] -= 1
        at = _next(hole)
        while stored[_slot_at(segment, at)]:
            home = _line(mix64(np.uint64(keys[_key_at(segment, at)]))) * PER_LINE
            if (at - home + ENTRIES) % ENTRIES >= (at - hole + ENTRIES) % ENTRIES:  # home is not between hole and here
                keys[_key_at(segment, hole)] = keys[_key_at(segment, at)]
                stored[_slot_at(segment, hole)] = stored[_slot_at(segment, at)]
                hole = at
            at = _next(at)
        stored[_slot_at(segment, hole)] = np.uint32(0)
    return erased


class IdIndex:
    """int64 -> slot in [0, 2**32 - 2]. One thread."""

    def __init__(self) -> None:
        self._directory = ReservedArray((), np.int32, 1 << MAX_DEPTH)
        self._lines = ReservedArray((LINES * 8,), np.int64)
        self._depths = ReservedArray((), np.uint8, self._lines.max_rows)
        self._fills = ReservedArray((), np.int32, self._lines.max_rows)
        self._keys: Keys = self._lines.array.reshape(-1)
        self._stored: Stored = self._keys.view(np.uint32)
        self._state = np.array([0, 1, 0, 0, 0], np.int64)
        self._ensured = 0
        self._ensure(1)

    def __len__(self) -> int:
        return int(self._state[COUNT])

    @property
    def splits(self) -> int:
        """Segments split so far."""
        return int(self._state[SPLITS])

    @property
    def nbytes(self) -> int:
        """Bytes of segments and directory in use."""
        return int(self._state[SEGMENTS]) * (LINES * LINE_BYTES + 5) + (4 << int(self._state[DEPTH]))

    def find(self, ids_N: Ids, slots_N: Slots) -> None:
        """slots[i] = the slot of ids[i], or -1."""
        find(self._directory.array, self._keys, self._stored, int(self._state[DEPTH]), ids_N, slots_N)

    def find_or_insert(self, ids_N: Ids, new_slots_N: Slots, slots_N: Slots) -> int:
        """slots[i] = the slot of ids[i]; an absent id takes the next of new_slots, which has room for all.

        Returns how many were absent. Raises ResourceExhausted when memory is at its end, or for ids chosen to collide;
        the ids before that one are in the index then.
        """
        self._state[CREATED] = 0
        reached = 0
        while True:
            self._ensure(int(self._state[SEGMENTS]) + len(ids_N) // MAX_FILL + 8)
            reached = find_or_insert(
                self._directory.array,
                self._keys,
                self._stored,
                self._depths.array,
                self._fills.array,
                self._state,
                self._ensured,
                ids_N,
                new_slots_N,
                slots_N,
                reached,
            )
            if reached == len(ids_N):
                return int(self._state[CREATED])
            if self._state[SEGMENTS] < self._ensured:
                raise ResourceExhausted(f"id {ids_N[reached]} and thousands of others share a hash: they were chosen to")

    def erase(self, ids_N: Ids, slots_N: Slots) -> int:
        """slots[i] = the slot that ids[i] had, or -1; returns how many were erased."""
        arrays = (self._directory.array, self._keys, self._stored, self._fills.array)
        erased = int(erase(*arrays, int(self._state[DEPTH]), ids_N, slots_N))
        self._state[COUNT] -= erased
        return erased

    def items(self) -> tuple[Ids, Slots]:
        """All ids and their slots, in no particular order."""
        lines = int(self._state[SEGMENTS]) * LINES
        keys = self._keys[: lines * 8].reshape(lines, 8)[:, :PER_LINE]
        stored = self._stored[: lines * 16].reshape(lines, 16)[:, 2 * PER_LINE : 3 * PER_LINE]
        taken = stored != 0
        return keys[taken], stored[taken].astype(np.int64) - 1

    def close(self) -> None:
        """Gives the memory back."""
        self._keys, self._stored = np.empty(0, np.int64), np.empty(0, np.uint32)
        for part in (self._directory, self._lines, self._depths, self._fills):
            part.close()

    def _ensure(self, segments: int) -> None:
        if segments > self._ensured:
            self._ensured = segments
            for part in (self._lines, self._depths, self._fills):
                part.ensure(segments)
