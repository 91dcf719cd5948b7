"""The id index: int64 -> slot, by extendible hashing (Fagin et al. 1979) with staggered splits.

    hash of id:   | 12 bits: partition | 20 bits: bucket | 32 bits: x |
    directory     x, skewed, its top `depth` bits -> segment
    segment       4096 buckets, linear probing inside: keys int64, slots uint32 stored as slot + 1, 0 = empty

A segment that is 85 % full splits in two: about 20 microseconds, and the only work that growth ever does at once. Uniform
hashing would fill all segments alike and split them all in the same push, so x is skewed as in spiral storage (Martin
1979): y = x(x+2)/3 has twice the density at one end as at the other, loads are spread between half full and full at any
time, and splits come one by one. The mean load is about 0.6: 20 bytes an id.

Every int64 is a legal id: emptiness is told by the slot. Ids chosen to share all 32 bits of x could defeat splitting; then
insertion stops with an error instead of growing without end.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from ps.errors import ResourceExhausted
from ps.kernels.hashing import mix64
from ps.kernels.prefetch import prefetch
from ps.memory import ReservedArray

Ids = npt.NDArray[np.int64]
Slots = npt.NDArray[np.int64]
Keys = npt.NDArray[np.int64]
Stored = npt.NDArray[np.uint32]

BUCKETS = 4096
MAX_FILL = BUCKETS * 85 // 100
MAX_DEPTH = 24
BLOCK = 32
DEPTH, SEGMENTS, COUNT, CREATED, SPLITS = 0, 1, 2, 3, 4
"""Positions in the state vector."""

_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_BUCKET_MASK = np.int64(BUCKETS - 1)
_SCALE = 2.0**MAX_DEPTH


@njit(cache=True, nogil=True, inline="always")
def _skew(hash_: np.uint64) -> np.int64:
    """The low 32 bits as MAX_DEPTH bits of y = x(x+2)/3."""
    x = np.float64(np.int64(hash_ & _LOW32)) * 2.0**-32
    return np.int64(x * (x + 2.0) * (_SCALE / 3.0))


@njit(cache=True, nogil=True, inline="always")
def _bucket(hash_: np.uint64) -> np.int64:
    return np.int64(hash_ >> _S32) & _BUCKET_MASK


@njit(cache=True, nogil=True)
def find(directory: npt.NDArray[np.int32], keys: Keys, stored: Stored, depth: int, ids_N: Ids, slots_N: Slots) -> None:
    """slots[i] = the slot of ids[i], or -1. In blocks: first all places of a block are asked for, then all are compared,
    so that the cache misses of a block overlap (2.5 times as fast as one id after the other)."""
    shift = MAX_DEPTH - depth
    places = np.empty(BLOCK, np.int64)
    for start in range(0, len(ids_N), BLOCK):
        size = min(BLOCK, len(ids_N) - start)
        for k in range(size):
            hash_ = mix64(np.uint64(ids_N[start + k]))
            place = np.int64(directory[_skew(hash_) >> shift]) * BUCKETS + _bucket(hash_)
            places[k] = place
            prefetch(stored, place)
            prefetch(keys, place)
        for k in range(size):
            place = places[k]
            while True:
                slot = np.int64(stored[place]) - 1
                if slot < 0 or keys[place] == ids_N[start + k]:
                    break
                place = (place & ~_BUCKET_MASK) | ((place + 1) & _BUCKET_MASK)
            slots_N[start + k] = slot


@njit(cache=True, nogil=True)
def _split(
    directory: npt.NDArray[np.int32],
    keys: Keys,
    stored: Stored,
    depths: npt.NDArray[np.uint8],
    fills: npt.NDArray[np.int32],
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

    base = segment * BUCKETS
    old_keys = keys[base : base + BUCKETS].copy()
    old_stored = stored[base : base + BUCKETS].copy()
    stored[base : base + BUCKETS] = np.uint32(0)
    fills[segment] = fills[new] = 0
    upper = MAX_DEPTH - local - 1
    for i in range(BUCKETS):
        if old_stored[i]:
            hash_ = mix64(np.uint64(old_keys[i]))
            target = new if (_skew(hash_) >> upper) & 1 else segment
            at = target * BUCKETS
            bucket = _bucket(hash_)
            while stored[at + bucket]:
                bucket = (bucket + 1) & _BUCKET_MASK
            keys[at + bucket] = old_keys[i]
            stored[at + bucket] = old_stored[i]
            fills[target] += 1


@njit(cache=True, nogil=True)
def find_or_insert(
    directory: npt.NDArray[np.int32],
    keys: Keys,
    stored: Stored,
    depths: npt.NDArray[np.uint8],
    fills: npt.NDArray[np.int32],
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
        id_ = ids_N[i]
        hash_ = mix64(np.uint64(id_))
        y = _skew(hash_)
        while True:
            segment = np.int64(directory[y >> (MAX_DEPTH - state[DEPTH])])
            base = segment * BUCKETS
            bucket = _bucket(hash_)
            while stored[base + bucket] and keys[base + bucket] != id_:
                bucket = (bucket + 1) & _BUCKET_MASK
            if stored[base + bucket]:
                slots_N[i] = np.int64(stored[base + bucket]) - 1
                break
            if fills[segment] < MAX_FILL:
                slot = new_slots_N[state[CREATED]]
                keys[base + bucket] = id_
                stored[base + bucket] = np.uint32(slot + 1)
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
    directory: npt.NDArray[np.int32],
    keys: Keys,
    stored: Stored,
    fills: npt.NDArray[np.int32],
    depth: int,
    ids_N: Ids,
    slots_N: Slots,
) -> int:
    """slots[i] = the slot that ids[i] had, or -1; returns how many were erased. What follows in the probe is moved up, so
    there are no tombstones."""
    erased = 0
    for i in range(len(ids_N)):
        hash_ = mix64(np.uint64(ids_N[i]))
        segment = np.int64(directory[_skew(hash_) >> (MAX_DEPTH - depth)])
        base = segment * BUCKETS
        hole = _bucket(hash_)
        while stored[base + hole] and keys[base + hole] != ids_N[i]:
            hole = (hole + 1) & _BUCKET_MASK
        slots_N[i] = np.int64(stored[base + hole]) - 1
        if slots_N[i] < 0:
            continue
        erased += 1
        fills[segment] -= 1
        at = hole
        while True:
            at = (at + 1) & _BUCKET_MASK
            if not stored[base + at]:
                break
            home = _bucket(mix64(np.uint64(keys[base + at])))
            if ((at - home) & _BUCKET_MASK) >= ((at - hole) & _BUCKET_MASK):  # its home is not between hole and here
                keys[base + hole] = keys[base + at]
                stored[base + hole] = stored[base + at]
                hole = at
        stored[base + hole] = np.uint32(0)
    return erased


class IdIndex:
    """int64 -> slot in [0, 2**32 - 2]. One thread."""

    def __init__(self) -> None:
        self._directory = ReservedArray((), np.int32, 1 << MAX_DEPTH)
        self._keys = ReservedArray((BUCKETS,), np.int64)
        self._stored = ReservedArray((BUCKETS,), np.uint32)
        most = min(self._keys.max_rows, self._stored.max_rows)
        self._depths = ReservedArray((), np.uint8, most)
        self._fills = ReservedArray((), np.int32, most)
        self._state = np.array([0, 1, 0, 0, 0], np.int64)
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
        per_segment = BUCKETS * 12 + 5
        return int(self._state[SEGMENTS]) * per_segment + (4 << int(self._state[DEPTH]))

    def find(self, ids_N: Ids, slots_N: Slots) -> None:
        """slots[i] = the slot of ids[i], or -1."""
        find(*self._table(), int(self._state[DEPTH]), ids_N, slots_N)

    def find_or_insert(self, ids_N: Ids, new_slots_N: Slots, slots_N: Slots) -> int:
        """slots[i] = the slot of ids[i]; an absent id takes the next of new_slots, which has room for all.

        Returns how many were absent. Raises ResourceExhausted when memory is at its end, or for ids chosen to collide;
        the ids before that one are in the index then.
        """
        self._state[CREATED] = 0
        reached = 0
        while True:
            self._ensure(int(self._state[SEGMENTS]) + len(ids_N) // MAX_FILL + 8)
            before = int(self._state[SEGMENTS])
            reached = find_or_insert(
                *self._table(),
                self._depths.array,
                self._fills.array,
                self._state,
                self._segments_ensured,
                ids_N,
                new_slots_N,
                slots_N,
                reached,
            )
            if reached == len(ids_N):
                return int(self._state[CREATED])
            if self._state[SEGMENTS] == before and before < self._segments_ensured:
                raise ResourceExhausted(f"id {ids_N[reached]} and thousands of others share a hash: they were chosen to")

    def erase(self, ids_N: Ids, slots_N: Slots) -> int:
        """slots[i] = the slot that ids[i] had, or -1; returns how many were erased."""
        erased = erase(*self._table(), self._fills.array, int(self._state[DEPTH]), ids_N, slots_N)
        self._state[COUNT] -= erased
        return int(erased)

    def items(self) -> tuple[Ids, Slots]:
        """All ids and their slots, in no particular order."""
        used = int(self._state[SEGMENTS])
        stored = self._stored.array[:used].reshape(-1)
        taken = np.flatnonzero(stored)
        return self._keys.array[:used].reshape(-1)[taken], stored[taken].astype(np.int64) - 1

    def close(self) -> None:
        """Gives the memory back."""
        for part in (self._directory, self._keys, self._stored, self._depths, self._fills):
            part.close()

    def _table(self) -> tuple[npt.NDArray[np.int32], Keys, Stored]:
        return self._directory.array, self._flat_keys, self._flat_stored

    def _ensure(self, segments: int) -> None:
        self._segments_ensured = segments
        for part in (self._keys, self._stored, self._depths, self._fills):
            part.ensure(segments)
        self._flat_keys = self._keys.array.reshape(-1)
        self._flat_stored = self._stored.array.reshape(-1)
