"""One score a row: a sum of signals that decays by half every HALF_LIFE ticks, and the order that it puts rows in.

    at a push     score = score * 2 ** -((now - stamp) / HALF_LIFE) + added, or the floor if that is more;  stamp = now
    rank          (bits of score >> 17) + stamp

A row costs nothing while it is not pushed: score and stamp stay, and so does the rank. Of two rows the one of higher
rank has the higher decayed score at any time, now or later: the bits of a positive float32, cut to 6 of the mantissa,
are 64 steps an octave, which is what a tick takes off (the steps are even in the mantissa, not in its logarithm: two
scores less than 9 % apart may change places). So the rows of a table can be counted by rank once and for all, and a
quantile is found without looking at them. A push never lowers a row's rank, whatever it adds: where adding and rounding
would (by less than those 9 %), the score is the one that keeps it. So an older copy of a row never outranks it. And
every touch changes (stamp, score): one that adds nothing at the time of the last makes the score the next number.

Rows are counted by rank, and where rows expire also by age: counts_ER[e] has those whose stamps lie in epoch e, which
is the number of `epochs_E` (times, rising) that are not later than the stamp. No epochs: nothing is counted by age.

statistics_S2 uint32 [S, 2] holds (score, stamp); `scores_S2` is the same memory seen as float32.
marks_S uint16 [S]: flags in the low bits, and how many steps hold the slot (pins) above them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from ps.kernels.prefetch import AHEAD, prefetch

Slots = npt.NDArray[np.int64]
Statistics = npt.NDArray[np.uint32]
Scores = npt.NDArray[np.float32]
Marks = npt.NDArray[np.uint16]
Ranks = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]

HALF_LIFE = 64
"""Ticks."""
RANKS = 256 * HALF_LIFE
"""Ranks that are told apart: 256 octaves; what is below them counts as the lowest."""

USED, COPIED, DIRTY, GOING, STAYS = 1, 2, 4, 8, 16
"""USED: the slot has a row. COPIED: the disk has a row of that id. DIRTY: it differs from the one on disk. GOING: it is
on its way down, and in no second demotion meanwhile. STAYS: it must not go down."""
PIN = 32
MAX_PINS = 0xFFFF // PIN
_FLAGS = np.uint16(PIN - 1)
_SHIFT = np.int64(17)


def pushes_per_tick(half_life_pushes: int) -> np.uint32:
    """HALF_LIFE ticks are about a half-life."""
    return np.uint32(min(max(1, half_life_pushes // HALF_LIFE), 0xFFFFFFFF))


def decay_table() -> npt.NDArray[np.float32]:
    """2 ** -(ticks / HALF_LIFE), until it is nothing."""
    return np.exp2(-np.arange(32 * HALF_LIFE) / HALF_LIFE).astype(np.float32)


@njit(cache=True, nogil=True, inline="always")
def _rank(score_bits: np.uint32, stamp: np.uint32, per_tick: np.uint32) -> np.int64:
    return (np.int64(score_bits) >> _SHIFT) + np.int64(np.uint32(stamp) // np.uint32(per_tick))


@njit(cache=True, nogil=True, inline="always")
def _place(rank: np.int64, first: np.int64) -> np.int64:
    """Where a rank is counted."""
    return min(max(rank - first, np.int64(0)), np.int64(RANKS - 1))


@njit(cache=True, nogil=True, inline="always")
def _tally(
    rank: np.int64, stamp: np.uint32, change: int, counts_R: Ranks, counts_ER: Counts, epochs_E: Ranks, first: np.int64
) -> None:
    place = _place(rank, first)
    counts_R[place] += change
    if len(epochs_E):
        epoch = len(epochs_E)
        while epoch > 0 and epochs_E[epoch - 1] > np.int64(stamp):
            epoch -= 1
        counts_ER[epoch, place] += change


@njit(cache=True, nogil=True)
def touch(
    statistics_S2: Statistics,
    scores_S2: Scores,
    marks_S: Marks,
    slots_N: Slots,
    added_N: Scores,
    now: np.uint32,
    per_tick: np.uint32,
    decay_T: Scores,
    floor_N: Scores,
    counts_R: Ranks,
    counts_ER: Counts,
    epochs_E: Ranks,
    first: np.int64,
) -> None:
    """Adds to the scores of unique slots, which are `floor` then or more, counts their rows under the new rank, and
    marks them dirty. floor float32 [n], or [1] for one that is the same for all."""
    tick = np.int64(np.uint32(now) // np.uint32(per_tick))
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N):
            prefetch(statistics_S2, slots_N[i + AHEAD] * 2)
            prefetch(marks_S, slots_N[i + AHEAD])
        s = slots_N[i]
        bits, stamp = statistics_S2[s, 0], statistics_S2[s, 1]
        before = _rank(bits, stamp, per_tick)
        _tally(before, stamp, -1, counts_R, counts_ER, epochs_E, first)
        age = tick - np.int64(np.uint32(stamp) // np.uint32(per_tick))
        decayed = scores_S2[s, 0] * decay_T[age] if age < len(decay_T) else np.float32(0.0)
        scores_S2[s, 0] = max(decayed + added_N[i], floor_N[min(i, len(floor_N) - 1)])
        after = _rank(statistics_S2[s, 0], now, per_tick)
        if after < before:
            statistics_S2[s, 0] = np.uint32((before - tick) << _SHIFT)
            after = before
        if stamp == now and statistics_S2[s, 0] == bits:
            statistics_S2[s, 0] = bits + np.uint32(1)
            after = _rank(statistics_S2[s, 0], now, per_tick)
        statistics_S2[s, 1] = now
        _tally(after, now, 1, counts_R, counts_ER, epochs_E, first)
        marks_S[s] |= np.uint16(DIRTY)


@njit(cache=True, nogil=True)
def ranks(statistics_N2: Statistics, per_tick: np.uint32, out_N: Ranks) -> None:
    """out[i] = the rank of row i."""
    for i in range(len(out_N)):
        out_N[i] = _rank(statistics_N2[i, 0], statistics_N2[i, 1], per_tick)


@njit(cache=True, nogil=True)
def outrank(
    statistics_S2: Statistics, slots_N: Slots, per_tick: np.uint32, rank: np.int64, out_N: npt.NDArray[np.bool_]
) -> None:
    """out[i] = whether there is a slot i, not -1, and its row is of a higher rank."""
    for i in range(len(slots_N)):
        if i + AHEAD < len(slots_N) and slots_N[i + AHEAD] >= 0:
            prefetch(statistics_S2, slots_N[i + AHEAD] * 2)
        s = slots_N[i]
        out_N[i] = s >= 0 and _rank(statistics_S2[s, 0], statistics_S2[s, 1], per_tick) > rank


@njit(cache=True, nogil=True)
def count(
    statistics_N2: Statistics,
    change: int,
    per_tick: np.uint32,
    counts_R: Ranks,
    counts_ER: Counts,
    epochs_E: Ranks,
    first: np.int64,
) -> None:
    """Counts rows in (change 1) or out (change -1)."""
    for i in range(len(statistics_N2)):
        rank, stamp = _rank(statistics_N2[i, 0], statistics_N2[i, 1], per_tick), statistics_N2[i, 1]
        _tally(rank, stamp, change, counts_R, counts_ER, epochs_E, first)


@njit(cache=True, nogil=True)
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
        if free_to_go and _rank(statistics_S2[s, 0], statistics_S2[s, 1], per_tick) <= highest:
            out_N[found] = s
            found += 1
    return found, end


@njit(cache=True, nogil=True)
def met(
    statistics_N2: Statistics, per_tick: np.uint32, stamps_C: Ranks, ranks_C: Ranks, out_N: npt.NDArray[np.bool_]
) -> None:
    """out[i] = whether row i is of rank ranks[c] or lower and its stamp is below stamps[c], for any c.

    Stamps rise, ranks fall: the first cut later than the stamp is the highest of those that count.
    """
    last = len(stamps_C) - 1
    for i in range(len(out_N)):
        stamp = np.int64(statistics_N2[i, 1])
        cut = last
        while cut > 0 and stamps_C[cut - 1] > stamp:
            cut -= 1
        rank = _rank(statistics_N2[i, 0], statistics_N2[i, 1], per_tick)
        out_N[i] = stamp < stamps_C[cut] and rank <= ranks_C[cut]


@njit(cache=True, nogil=True)
def select_met(
    statistics_S2: Statistics,
    marks_S: Marks,
    start: int,
    end: int,
    per_tick: np.uint32,
    stamps_C: Ranks,
    ranks_C: Ranks,
    out_N: Slots,
) -> tuple[int, int]:
    """Slots in [start, end) that are used and whose rows a cut has met; returned as by `select`."""
    met_1 = np.zeros(1, np.bool_)
    found = 0
    for s in range(start, end):
        if found == len(out_N):
            return found, s
        if marks_S[s] & np.uint16(USED):
            met(statistics_S2[s : s + 1], per_tick, stamps_C, ranks_C, met_1)
            if met_1[0]:
                out_N[found] = s
                found += 1
    return found, end


@njit(cache=True, nogil=True)
def mark(marks_S: Marks, slots_N: Slots, set_: int, clear: int) -> None:
    """Sets flags, then clears others; a negative slot is skipped."""
    for i in range(len(slots_N)):
        if slots_N[i] >= 0:
            marks_S[slots_N[i]] = (marks_S[slots_N[i]] | np.uint16(set_)) & ~np.uint16(clear)


@njit(cache=True, nogil=True)
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
