"""The kernels of the id index: extendible hashing (Fagin et al. 1979) with staggered splits.

    hash of id   | 22 bits | 10 bits: line | 32 bits: x |              of the id mixed with a secret
    directory    y(x), its top `depth` bits -> segment
    segment      1024 lines of 64 bytes, filled by linear probing, line after line, around the end
    line         5 ids (int64), 5 slots (uint32, stored as slot + 1, 0 = empty), 4 bytes spare; filled from the front

A lookup compares the entries of its line and goes on only if the line is full: one cache miss, where ids and slots in
arrays of their own would be two. Fresh zero pages are empty lines; every int64, 0 too, is a legal id.

A segment that is 92 % full splits in two, and that is the only work that growth ever does at once. Uniform hashing
would fill all segments alike and split them all in the same push, so x is skewed as in spiral storage (Martin 1979):
y = x(x+2)/3 has twice the density at one end as at the other, loads are spread between half full and full at any
time, and splits come one by one.

One file on purpose: a cached kernel is compiled again when its own file changes, not when that of a helper does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Slots
from ps.kernels.index.hashing import mix64
from ps.kernels.kernel import helper, kernel
from ps.kernels.prefetch import AHEAD, prefetch

LINES = 1024
PER_LINE = 5
LINE_BYTES = 64
MAX_FILL = LINES * PER_LINE * 92 // 100
"""Fuller, and probes of absent ids grow long; emptier, and an id takes more than 20 bytes."""
MAX_DEPTH = 24
FIND_AHEAD = 16
"""Ids between asking for a line and looking at it: fewer wait for memory, more are evicted again (8: 1.3 times as slow;
in blocks of 32, without overlap from one block to the next: 1.5 times)."""

DEPTH, SEGMENTS, COUNT, CREATED, SPLITS, SECRET = 0, 1, 2, 3, 4, 5
"""Positions in `Segments.state`; the last is what ids are mixed with before they are hashed."""

_LOW32 = np.uint64(0xFFFFFFFF)
_S32 = np.uint64(32)
_LINE_MASK = np.uint64(LINES - 1)
_SCALE = 2.0**MAX_DEPTH


class Segments(NamedTuple):
    """The index's memory. `ids` and `slots` are two views of the same lines."""

    directory: npt.NDArray[np.int32]
    ids: npt.NDArray[np.int64]
    """Flat: 8 to a line, of which the first 5 are ids."""
    slots: npt.NDArray[np.uint32]
    """Flat: 16 to a line, of which those from the 11th to the 15th are slots + 1."""
    depths: npt.NDArray[np.uint8]
    fills: npt.NDArray[np.int32]
    state: npt.NDArray[np.int64]


@helper()
def _secret(segments: Segments) -> np.uint64:
    return np.uint64(segments.state[SECRET])


@helper()
def _hash(id_: np.int64, secret: np.uint64) -> np.uint64:
    hash_: np.uint64 = mix64(np.uint64(id_) ^ secret)
    return hash_


@helper()
def _skew(hash_: np.uint64) -> np.int64:
    """The low 32 bits x as MAX_DEPTH bits of y = x(x+2)/3; below 2**MAX_DEPTH for x < 1 although it is rounded."""
    x = np.float64(np.int64(hash_ & _LOW32)) * 2.0**-32
    return np.int64(x * (x + 2.0) * (_SCALE / 3.0))


@helper()
def _line(hash_: np.uint64) -> np.int64:
    """The line, within its segment, at which the probe for an id starts."""
    return np.int64((hash_ >> _S32) & _LINE_MASK)


@helper()
def _next_line(line: np.int64) -> np.int64:
    """The line after, around the end of the segment."""
    return line + 1 if (line + 1) & (LINES - 1) else line + 1 - LINES


@helper()
def _slot_at(line: np.int64, k: np.int64) -> np.int64:
    """Where the slot of a line's k-th entry is in the flat view."""
    return line * 16 + 2 * PER_LINE + k


@helper()
def _full(slots: npt.NDArray[np.uint32], line: np.int64) -> bool:
    return bool(slots[_slot_at(line, PER_LINE - 1)])


@helper()
def _taken(slots: npt.NDArray[np.uint32], line: np.int64) -> int:
    """Entries of a line in use; a sum, because a branch on it would be guessed wrong most of the time."""
    taken = 0
    for k in range(PER_LINE):
        taken += slots[_slot_at(line, k)] != 0
    return taken


@helper()
def _probe(segments: Segments, line: np.int64, id_: np.int64) -> np.int64:
    """The slot of an id, from its line on, or -1. All entries of a line are compared, without a branch."""
    while True:
        slot = np.uint32(0)
        for k in range(PER_LINE):
            slot |= segments.slots[_slot_at(line, k)] if segments.ids[line * 8 + k] == id_ else np.uint32(0)
        if slot or not _full(segments.slots, line):
            return np.int64(slot) - 1
        line = _next_line(line)


@helper()
def _append(segments: Segments, line: np.int64, id_: np.int64, stored: np.uint32) -> None:
    """Puts an absent id into the first empty entry from `line` on; MAX_FILL sees to it that there is one."""
    while _full(segments.slots, line):
        line = _next_line(line)
    k = _taken(segments.slots, line)
    segments.ids[line * 8 + k] = id_
    segments.slots[_slot_at(line, k)] = stored


@kernel(either="ids_N")
def find(segments: Segments, ids_N: Ids, slots_N: Slots) -> None:
    """slots[i] = the slot of ids[i], or -1.

    The line of an id is asked for FIND_AHEAD ids before it is looked at, so that as many cache misses overlap.
    """
    shift, secret = MAX_DEPTH - segments.state[DEPTH], _secret(segments)
    lines = np.empty(2 * FIND_AHEAD, np.int64)  # a ring, its length a power of two
    for i in range(len(ids_N) + FIND_AHEAD):
        if i < len(ids_N):
            hash_ = _hash(ids_N[i], secret)
            line = np.int64(segments.directory[_skew(hash_) >> shift]) * LINES + _line(hash_)
            lines[i & (2 * FIND_AHEAD - 1)] = line
            prefetch(segments.ids, line * 8)
        k = i - FIND_AHEAD
        if k >= 0:
            slots_N[k] = _probe(segments, lines[k & (2 * FIND_AHEAD - 1)], ids_N[k])


@helper()
def _prefetch_line(segments: Segments, secret: np.uint64, ids_N: Ids, i: int) -> None:
    """Asks for the line of the id that is AHEAD of position i. A split in between makes it a miss, no more."""
    if i + AHEAD < len(ids_N):
        hash_ = _hash(ids_N[i + AHEAD], secret)
        segment = np.int64(segments.directory[_skew(hash_) >> (MAX_DEPTH - segments.state[DEPTH])])
        prefetch(segments.ids, (segment * LINES + _line(hash_)) * 8)


@helper(inline=False)
def _share_directory(segments: Segments, segment: np.int64, new: np.int64, y: np.int64) -> None:
    """Gives the upper half of a segment's directory entries (y's is one) to `new`; doubles the directory if it must."""
    directory, state = segments.directory, segments.state
    local = np.int64(segments.depths[segment])
    if local == state[DEPTH]:
        for i in range((1 << state[DEPTH]) - 1, -1, -1):
            directory[2 * i] = directory[2 * i + 1] = directory[i]
        state[DEPTH] += 1
    run = 1 << (state[DEPTH] - local)
    first = ((y >> (MAX_DEPTH - state[DEPTH])) // run) * run
    directory[first + run // 2 : first + run] = new
    segments.depths[segment] = segments.depths[new] = np.uint8(local + 1)


@helper(inline=False)
def _split(segments: Segments, segment: np.int64, y: np.int64) -> None:
    """Moves the upper half of a segment's range of y to a new segment."""
    new = segments.state[SEGMENTS]
    segments.state[SEGMENTS] += 1
    segments.state[SPLITS] += 1
    _share_directory(segments, segment, new, y)

    old_ids = segments.ids[segment * LINES * 8 : (segment + 1) * LINES * 8].copy()
    old_slots = old_ids.view(np.uint32)
    segments.slots[segment * LINES * 16 : (segment + 1) * LINES * 16] = np.uint32(0)
    upper, secret = MAX_DEPTH - np.int64(segments.depths[segment]), _secret(segments)
    moved = 0
    for line in range(LINES):
        for k in range(_taken(old_slots, line)):
            id_ = old_ids[line * 8 + k]
            hash_ = _hash(id_, secret)
            is_upper = (_skew(hash_) >> upper) & 1
            target = new if is_upper else segment
            _append(segments, target * LINES + _line(hash_), id_, old_slots[_slot_at(line, k)])
            moved += is_upper
    segments.fills[segment] -= moved
    segments.fills[new] = moved


@kernel(either="ids_N")
def find_or_insert(
    segments: Segments, max_segments: int, ids_N: Ids, new_slots_N: Slots, slots_N: Slots, start: int
) -> int:
    """From position `start` on: slots[i] = the slot of ids[i], the next of new_slots if there is none.

    Returns the position reached: before the end when one more segment is needed than `max_segments`, or when a full
    segment cannot be split further.
    """
    state, secret = segments.state, _secret(segments)
    for i in range(start, len(ids_N)):
        _prefetch_line(segments, secret, ids_N, i)
        id_ = ids_N[i]
        hash_ = _hash(id_, secret)
        y = _skew(hash_)
        while True:
            segment = np.int64(segments.directory[y >> (MAX_DEPTH - state[DEPTH])])
            line = segment * LINES + _line(hash_)
            slot = _probe(segments, line, id_)
            if slot >= 0:
                break
            if segments.fills[segment] < MAX_FILL:
                slot = new_slots_N[state[CREATED]]
                _append(segments, line, id_, np.uint32(slot + 1))
                segments.fills[segment] += 1
                state[CREATED] += 1
                state[COUNT] += 1
                break
            if state[SEGMENTS] == max_segments or segments.depths[segment] == MAX_DEPTH:
                return i
            _split(segments, segment, y)
        slots_N[i] = slot
    return len(ids_N)


@helper()
def _find_entry(segments: Segments, line: np.int64, id_: np.int64) -> int:
    """Where an id is in the flat view, or -1."""
    while True:
        for k in range(_taken(segments.slots, line)):
            if segments.ids[line * 8 + k] == id_:
                return int(line * 8 + k)
        if not _full(segments.slots, line):
            return -1
        line = _next_line(line)


@helper(inline=False)
def _find_overflow(segments: Segments, secret: np.uint64, line: np.int64) -> int:
    """Where the next entry behind `line` is whose probe passes it, starting there or before; -1 if there is none."""
    at = line
    while True:
        at = _next_line(at)
        for k in range(_taken(segments.slots, at)):
            home = _line(_hash(segments.ids[at * 8 + k], secret))
            if (at - home) & (LINES - 1) >= (at - line) & (LINES - 1):
                return int(at * 8 + k)
        if not _full(segments.slots, at):
            return -1


@helper()
def _remove(segments: Segments, secret: np.uint64, entry: int) -> None:
    """Empties an entry. Its line's last entry takes its place, and if the line was full, so that probes went on behind
    it, one of those behind takes the last place, and so on: there are no tombstones."""
    ids, slots = segments.ids, segments.slots
    while entry >= 0:
        line, k = entry >> 3, entry & 7
        was_full = _full(slots, line)
        last = _taken(slots, line) - 1
        ids[entry] = ids[line * 8 + last]
        slots[_slot_at(line, k)] = slots[_slot_at(line, last)]
        slots[_slot_at(line, last)] = np.uint32(0)
        entry = _find_overflow(segments, secret, line) if was_full else -1
        if entry >= 0:
            ids[line * 8 + last] = ids[entry]
            slots[_slot_at(line, last)] = slots[_slot_at(entry >> 3, entry & 7)]


@kernel(either="ids_N")
def erase(segments: Segments, ids_N: Ids, slots_N: Slots) -> int:
    """slots[i] = the slot that ids[i] had, or -1; returns how many were erased."""
    shift, secret = MAX_DEPTH - segments.state[DEPTH], _secret(segments)
    erased = 0
    for i in range(len(ids_N)):
        _prefetch_line(segments, secret, ids_N, i)
        hash_ = _hash(ids_N[i], secret)
        segment = np.int64(segments.directory[_skew(hash_) >> shift])
        entry = _find_entry(segments, segment * LINES + _line(hash_), ids_N[i])
        slots_N[i] = -1
        if entry >= 0:
            slots_N[i] = np.int64(segments.slots[_slot_at(entry >> 3, entry & 7)]) - 1
            _remove(segments, secret, entry)
            segments.fills[segment] -= 1
            erased += 1
    segments.state[COUNT] -= erased
    return erased


@kernel(either="ids_N")
def reslot(segments: Segments, ids_N: Ids, slots_N: Slots) -> None:
    """The ids, all of them here, have those slots from now on."""
    shift, secret = MAX_DEPTH - segments.state[DEPTH], _secret(segments)
    for i in range(len(ids_N)):
        _prefetch_line(segments, secret, ids_N, i)
        hash_ = _hash(ids_N[i], secret)
        segment = np.int64(segments.directory[_skew(hash_) >> shift])
        entry = _find_entry(segments, segment * LINES + _line(hash_), ids_N[i])
        if entry >= 0:
            segments.slots[_slot_at(entry >> 3, entry & 7)] = np.uint32(slots_N[i] + 1)
