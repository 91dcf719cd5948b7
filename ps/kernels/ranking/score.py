"""One score a row: a sum of signals that decays by half every HALF_LIFE ticks, and the order that it puts rows in.

    at a push     score = score * 2 ** -((now - stamp) / HALF_LIFE) + added, or the floor if that is more;  stamp = now
    rank          (bits of score >> 17) + stamp

A row costs nothing while it is not pushed: score and stamp stay, and so does the rank. Of two rows the one of higher
rank has the higher decayed score at any time, now or later: the bits of a positive float32, cut to 6 of the mantissa,
are 64 steps an octave, which is what a tick takes off (the steps are even in the mantissa, not in its logarithm: two
scores less than 9 % apart may change places). So the rows of a table can be counted by rank once and for all, and a
quantile is found without looking at them. A push never lowers a row's rank, whatever it adds: where adding and rounding
would (by less than those 9 %), the score is the one that keeps it. So an older copy of a row never outranks it.

The lowest LOT_BITS bits of a score are the row's lot. It is drawn when the row is created (`lots`) and stays for as
long as the row lives, whatever is added. Rows of one rank can be parted by it. What is added counts to 18 bits of the
mantissa. Every touch changes the statistics: within one stamp the score rises by its last bit at least, so "unchanged"
can be told.

Rows are counted by rank, and where rows expire also by age: counts_ER[e] has those whose stamps lie in epoch e, which
is the number of `epochs_E` (times, rising) that are not later than the stamp. No epochs: nothing is counted by age.
Where rows may be evicted they are counted by lot as well: lots_ERL[e, r, l] of counts_ER[e, r], or of counts_R[r] where
there are no epochs. None for lots_ERL: they are not, and kernels are compiled without. `touch` is a third faster then.

statistics_S2 uint32 [S, 2] holds (score, stamp); `scores_S2` is the same memory seen as float32.
marks_S uint16 [S]: flags in the low bits, and how many steps hold the slot (pins) above them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ints, Scores, Slots
from ps.kernels.kernel import helper, kernel
from ps.kernels.prefetch import AHEAD, prefetch

Statistics = npt.NDArray[np.uint32]
Marks = npt.NDArray[np.uint16]
Ranks = npt.NDArray[np.int64]
Lots = npt.NDArray[np.int32]

HALF_LIFE = 64
"""Ticks."""
RANKS = 256 * HALF_LIFE
"""Ranks that are told apart: 256 octaves; what is below them counts as the lowest."""
LOT_BITS = 5
LOTS = 1 << LOT_BITS
"""Lots that rows of one rank are parted by."""
LOT_MASK = np.uint32(LOTS - 1)
"""The bits of a score that are the row's lot."""

USED, COPIED, DIRTY, GOING, STAYS, CHANGED = 1, 2, 4, 8, 16, 32
"""USED: the slot has a row. COPIED: the disk has a row of that id. DIRTY: it differs from the one on disk. GOING: it is
on its way down, and in no second demotion meanwhile. STAYS: it must not go down. CHANGED: it is not what it was at the
last cut of a checkpoint."""
PIN = 64
MAX_PINS = 0xFFFF // PIN
_FLAGS = np.uint16(PIN - 1)
_SHIFT = np.int64(17)
_SCORE = ~LOT_MASK
_SMALLEST = np.uint32(1 << 23)
"""Bits of the smallest score that is not denormal: what is less counts as none."""
_SALT = 0x9E3779B97F4A7C15


def stamps_per_tick(half_life_pushes: int | None) -> np.uint32:
    """HALF_LIFE ticks are about a half-life. Stamps count pushes; where a half-life is none in pushes (None), ticks."""
    return np.uint32(1 if half_life_pushes is None else min(max(1, half_life_pushes // HALF_LIFE), 0xFFFFFFFF))


def lots(hashes_N: npt.NDArray[np.uint64], stamp: int) -> Statistics:
    """uint32 [n]: the lots of rows that are created at that time, from hashes of their ids."""
    mixed_N = (hashes_N ^ np.uint64(stamp * _SALT & 0xFFFFFFFFFFFFFFFF)) * np.uint64(_SALT)
    return (mixed_N >> np.uint64(64 - LOT_BITS)).astype(np.uint32)


def begin(statistics_S2: Statistics, slots_N: Slots, scores_N: Scores) -> None:
    """Gives new rows in these slots scores to begin with."""
    statistics_S2[slots_N, 0] = (scores_N.view(np.uint32) & _SCORE) | (statistics_S2[slots_N, 0] & LOT_MASK)


def scores(statistics_N2: Statistics) -> Scores:
    """float32 [n]: the scores without their lots; those that are denormal count as none."""
    bits_N = statistics_N2[:, 0]
    return np.where(bits_N < _SMALLEST, np.uint32(0), bits_N & _SCORE).view(np.float32)


def aged(statistics_N2: Statistics, now: int, per_tick: int) -> Scores:
    """float32 [n]: scores with which rows that are stamped now have the ranks that they have, of a clock that shows
    `now`; another clock may show something else, and the rows keep their order. Lots stay."""
    bits_N, stamps_N = (statistics_N2[:, column].astype(np.int64) for column in (0, 1))
    places_N = (bits_N >> _SHIFT) + stamps_N // per_tick - now // per_tick
    below = (np.int64(1) << _SHIFT) - 1
    aged_N = np.where(places_N > 0, (places_N << _SHIFT) | (bits_N & below), bits_N & np.int64(LOT_MASK))
    return aged_N.astype(np.uint32).view(np.float32)


def risen(old_N2: Statistics, bits_N: Statistics, now: int, per_tick: np.uint32) -> Statistics:
    """uint32 [n]: bits of scores for rows with these statistics that are to have other scores now: their lots stay, no
    rank falls, and within one stamp all bits rise."""
    old_N, stamps_N = old_N2[:, 0].astype(np.int64), old_N2[:, 1].astype(np.int64)
    lots_N, ticks = old_N & int(LOT_MASK), now // int(per_tick)
    wanted_N = bits_N.astype(np.int64) & ~int(LOT_MASK) | lots_N
    least_N = (old_N >> _SHIFT) + stamps_N // int(per_tick) - ticks  # what its rank is worth now
    fell_N = wanted_N >> _SHIFT < least_N
    wanted_N = np.where(fell_N, least_N << _SHIFT | lots_N, wanted_N)
    same_N = (stamps_N == now) & (wanted_N <= old_N)
    return np.where(same_N, old_N + LOTS, wanted_N).astype(np.uint32)


def decay_table() -> npt.NDArray[np.float32]:
    """2 ** -(ticks / HALF_LIFE), until it is nothing."""
    return np.exp2(-np.arange(32 * HALF_LIFE) / HALF_LIFE).astype(np.float32)


@helper()
def rank_of(score_bits: np.uint32, stamp: np.uint32, per_tick: np.uint32) -> np.int64:
    """Returns the rank of one row."""
    return (np.int64(score_bits) >> _SHIFT) + np.int64(np.uint32(stamp) // np.uint32(per_tick))


@helper()
def _place(rank: np.int64, first: np.int64) -> np.int64:
    """Where a rank is counted."""
    return min(max(rank - first, np.int64(0)), np.int64(RANKS - 1))


@helper()
def _tally(
    rank: np.int64,
    score_bits: np.uint32,
    stamp: np.uint32,
    change: int,
    counts_R: Ranks,
    counts_ER: Ints,
    lots_ERL: Lots | None,
    epochs_E: Ranks,
    first: np.int64,
) -> None:
    place = _place(rank, first)
    counts_R[place] += change
    epoch = 0
    if len(epochs_E):
        epoch = len(epochs_E)
        while epoch > 0 and epochs_E[epoch - 1] > np.int64(stamp):
            epoch -= 1
        counts_ER[epoch, place] += change
    if lots_ERL is not None:
        lots_ERL[epoch, place, np.int64(score_bits & LOT_MASK)] += change


@kernel()
def touch(
    statistics_S2: Statistics,
    scores_S2: Scores,
    marks_S: Marks,
    slots_N: Slots,
    added_N: Scores,
    now: np.uint32,
    per_tick: np.uint32,
    decay_T: Scores,
    floor: np.float32,
    lucky: np.uint32,
    border: np.int64,
    counts_R: Ranks,
    counts_ER: Ints,
    lots_ERL: Lots | None,
    epochs_E: Ranks,
    first: np.int64,
) -> int:
    """Adds to the scores of unique slots, which are `floor` then or more, counts their rows under the new rank, and
    marks them dirty and changed. To rows without a score whose lot is below `lucky` twice as much is added. Returns how
    many had no score yet, or were of rank `border` or lower."""
    tick = np.int64(np.uint32(now) // np.uint32(per_tick))
    missed = 0
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N):
            prefetch(statistics_S2, slots_N[i + AHEAD] * 2)
            prefetch(marks_S, slots_N[i + AHEAD])
        s = slots_N[i]
        bits, stamp = statistics_S2[s, 0], statistics_S2[s, 1]
        before = rank_of(bits, stamp, per_tick)
        _tally(before, bits, stamp, -1, counts_R, counts_ER, lots_ERL, epochs_E, first)
        missed += before <= border or bits < np.uint32(LOTS)
        age = tick - np.int64(np.uint32(stamp) // np.uint32(per_tick))
        counts = bits >= _SMALLEST and age < len(decay_T)
        decayed = scores_S2[s, 0] * decay_T[age] if counts else np.float32(0.0)
        added = added_N[i] * np.float32(2.0) if bits < lucky else added_N[i]
        scores_S2[s, 0] = max(decayed + added, floor)
        touched = (statistics_S2[s, 0] & _SCORE) | (bits & LOT_MASK)
        after = rank_of(touched, now, per_tick)
        if after < before:
            touched = np.uint32((before - tick) << _SHIFT) | (bits & LOT_MASK)
        if stamp == now and touched <= bits:
            touched = bits + np.uint32(LOTS)
        statistics_S2[s, 0] = touched
        statistics_S2[s, 1] = now
        after = rank_of(touched, now, per_tick)
        _tally(after, touched, now, 1, counts_R, counts_ER, lots_ERL, epochs_E, first)
        marks_S[s] |= np.uint16(DIRTY | CHANGED)
    return missed


@kernel()
def ranks(statistics_N2: Statistics, per_tick: np.uint32, out_N: Ranks) -> None:
    """out[i] = the rank of row i."""
    for i in range(len(out_N)):
        out_N[i] = rank_of(statistics_N2[i, 0], statistics_N2[i, 1], per_tick)


@kernel()
def outrank(
    statistics_S2: Statistics, slots_N: Slots, per_tick: np.uint32, rank: np.int64, out_N: npt.NDArray[np.bool_]
) -> None:
    """out[i] = whether there is a slot i, not -1, and its row is of a higher rank."""
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N) and slots_N[i + AHEAD] >= 0:
            prefetch(statistics_S2, slots_N[i + AHEAD] * 2)
        s = slots_N[i]
        out_N[i] = s >= 0 and rank_of(statistics_S2[s, 0], statistics_S2[s, 1], per_tick) > rank


@kernel()
def count(
    statistics_N2: Statistics,
    change: int,
    per_tick: np.uint32,
    counts_R: Ranks,
    counts_ER: Ints,
    lots_ERL: Lots | None,
    epochs_E: Ranks,
    first: np.int64,
) -> None:
    """Counts rows in (change 1) or out (change -1)."""
    for i in range(len(statistics_N2)):
        bits, stamp = statistics_N2[i, 0], statistics_N2[i, 1]
        _tally(rank_of(bits, stamp, per_tick), bits, stamp, change, counts_R, counts_ER, lots_ERL, epochs_E, first)


@kernel()
def select(
    statistics_S2: Statistics,
    marks_S: Marks,
    start: int,
    end: int,
    highest: np.int64,
    per_tick: np.uint32,
    out_N: Slots,
) -> tuple[int, int]:
    """Slots in [start, end) that are used, may go down and are not yet, held by no step and of rank `highest` or lower.

    Returns how many were found and where the search stopped: at the end, or earlier where `out_N` was full.
    """
    found = 0
    for s in range(start, end):
        if found == len(out_N):
            return found, s
        free_to_go = marks_S[s] & np.uint16(USED | GOING | STAYS) == np.uint16(USED) and marks_S[s] < np.uint16(PIN)
        if free_to_go and rank_of(statistics_S2[s, 0], statistics_S2[s, 1], per_tick) <= highest:
            out_N[found] = s
            found += 1
    return found, end


@kernel()
def mark(marks_S: Marks, slots_N: Slots, set_: int, clear: int) -> None:
    """Sets flags, then clears others; a negative slot is skipped."""
    for i in range(len(slots_N)):
        if slots_N[i] >= 0:
            marks_S[slots_N[i]] = (marks_S[slots_N[i]] | np.uint16(set_)) & ~np.uint16(clear)


@kernel()
def pin(marks_S: Marks, slots_N: Slots, change: int) -> None:
    """One more (change 1) or one less (change -1) step holds these slots; a negative slot is skipped.

    Stops at MAX_PINS, where the slot stays pinned for good: better than a row that moves under a step.
    """
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N) and slots_N[i + AHEAD] >= 0:
            prefetch(marks_S, slots_N[i + AHEAD])
        s = slots_N[i]
        if s >= 0:
            pins = np.int64(marks_S[s]) // PIN
            if pins < MAX_PINS:
                marks_S[s] = (marks_S[s] & _FLAGS) | np.uint16(PIN * max(pins + np.int64(change), np.int64(0)))
