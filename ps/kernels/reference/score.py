"""`ps.kernels.score`, in numpy. Integers and single float32 operations: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Slots = npt.NDArray[np.int64]
Statistics = npt.NDArray[np.uint32]
Scores = npt.NDArray[np.float32]
Marks = npt.NDArray[np.uint16]
Ranks = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]


def ranks(statistics_N2: Statistics, per_tick: int, out_N: Ranks) -> None:
    """out[i] = the rank of row i."""
    out_N[:] = (statistics_N2[:, 0] >> 17).astype(np.int64) + statistics_N2[:, 1].astype(np.int64) // int(per_tick)


def outrank(statistics_S2: Statistics, slots_N: Slots, per_tick: int, rank: int, out_N: npt.NDArray[np.bool_]) -> None:
    """out[i] = whether there is a slot i and its row is of a higher rank."""
    ranks_N = np.empty(len(slots_N), np.int64)
    ranks(statistics_S2[slots_N], per_tick, ranks_N)
    out_N[:] = (slots_N >= 0) & (ranks_N > rank)


def count(
    statistics_N2: Statistics,
    change: int,
    per_tick: int,
    counts_R: Ranks,
    counts_ER: Counts,
    epochs_E: Ranks,
    first: int,
) -> None:
    """Counts rows in (change 1) or out (change -1), by rank and, where there are epochs, by epoch and rank."""
    places_N = np.empty(len(statistics_N2), np.int64)
    ranks(statistics_N2, per_tick, places_N)
    places_N = np.clip(places_N - first, 0, len(counts_R) - 1)
    np.add.at(counts_R, places_N, change)
    if len(epochs_E):
        stamps_N = statistics_N2[:, 1].astype(np.int64)
        np.add.at(counts_ER, (np.searchsorted(epochs_E, stamps_N, side="right"), places_N), change)


def touch(
    statistics_S2: Statistics,
    scores_S2: Scores,
    marks_S: Marks,
    slots_N: Slots,
    added_N: Scores,
    now: int,
    per_tick: int,
    decay_T: Scores,
    floor_N: Scores,
    counts_R: Ranks,
    counts_ER: Counts,
    epochs_E: Ranks,
    first: int,
) -> None:
    """Adds to the scores of unique slots, which are `floor` then or more, counts their rows under the new rank, and
    marks them dirty."""
    count(statistics_S2[slots_N], -1, per_tick, counts_R, counts_ER, epochs_E, first)
    given_N2 = statistics_S2[slots_N]
    before_N, after_N = np.empty(len(slots_N), np.int64), np.empty(len(slots_N), np.int64)
    ranks(statistics_S2[slots_N], per_tick, before_N)
    tick = int(now) // int(per_tick)
    ages_N = tick - statistics_S2[slots_N, 1].astype(np.int64) // int(per_tick)
    alive_N = ages_N < len(decay_T)
    factors_N = np.where(alive_N, decay_T[np.where(alive_N, ages_N, 0)], np.float32(0))
    scores_S2[slots_N, 0] = np.maximum(scores_S2[slots_N, 0] * factors_N + added_N, floor_N)
    statistics_S2[slots_N, 1] = now
    ranks(statistics_S2[slots_N], per_tick, after_N)
    kept_N = (before_N - tick) << 17
    fell_N = after_N < before_N
    statistics_S2[slots_N[fell_N], 0] = kept_N[fell_N]
    same_N = (statistics_S2[slots_N] == given_N2).all(axis=1)
    statistics_S2[slots_N[same_N], 0] += np.uint32(1)
    count(statistics_S2[slots_N], 1, per_tick, counts_R, counts_ER, epochs_E, first)
    marks_S[slots_N] |= np.uint16(4)


def select(
    statistics_S2: Statistics, marks_S: Marks, start: int, end: int, highest: int, per_tick: int, out_N: Slots
) -> tuple[int, int]:
    """Slots in [start, end) that are used, may go and are not going, unpinned and of rank `highest` or lower."""
    ranks_S = np.empty(len(marks_S), np.int64)
    ranks(statistics_S2, per_tick, ranks_S)
    wanted_S = (marks_S & 25 == 1) & (marks_S < 32) & (ranks_S <= highest)
    return _first_of(start + np.flatnonzero(wanted_S[start:end]), start, end, out_N)


def met(
    statistics_N2: Statistics, per_tick: int, stamps_C: Ranks, ranks_C: Ranks, out_N: npt.NDArray[np.bool_]
) -> None:
    """out[i] = whether any cut is later than the row and as high as its rank or higher."""
    ranks_N = np.empty(len(statistics_N2), np.int64)
    ranks(statistics_N2, per_tick, ranks_N)
    stamps_N = statistics_N2[:, 1].astype(np.int64)
    out_N[:] = ((stamps_N[:, None] < stamps_C) & (ranks_N[:, None] <= ranks_C)).any(axis=1)


def select_met(
    statistics_S2: Statistics,
    marks_S: Marks,
    start: int,
    end: int,
    per_tick: int,
    stamps_C: Ranks,
    ranks_C: Ranks,
    out_N: Slots,
) -> tuple[int, int]:
    """Slots in [start, end) that are used and met by a cut; how many, and where it stopped."""
    met_S = np.zeros(len(marks_S), np.bool_)
    met(statistics_S2, per_tick, stamps_C, ranks_C, met_S)
    return _first_of(start + np.flatnonzero((met_S & (marks_S & 1 != 0))[start:end]), start, end, out_N)


def _first_of(found_N: Slots, start: int, end: int, out_N: Slots) -> tuple[int, int]:
    taken_N = found_N[: len(out_N)]
    out_N[: len(taken_N)] = taken_N
    if len(taken_N) < len(out_N):
        return len(taken_N), end
    full_at = int(taken_N[-1]) + 1 if len(taken_N) else start
    return len(taken_N), full_at


def mark(marks_S: Marks, slots_N: Slots, set_: int, clear: int) -> None:
    """Sets flags, then clears others; a negative slot is skipped."""
    there_N = slots_N[slots_N >= 0]
    marks_S[there_N] = (marks_S[there_N] | np.uint16(set_)) & ~np.uint16(clear)


def pin(marks_S: Marks, slots_N: Slots, change: int) -> None:
    """One more or one less step holds these slots; a negative slot is skipped; 2047 pins stay."""
    for slot in slots_N[slots_N >= 0]:
        pins, flags = divmod(int(marks_S[slot]), 32)
        if pins < 2047:
            marks_S[slot] = max(pins + change, 0) * 32 + flags
