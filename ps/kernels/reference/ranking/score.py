"""`ps.kernels.ranking.score`, in numpy. Integers and single float32 operations: exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ps.arrays import Ints, Scores, Slots
from ps.kernels.ranking.score import Lots, Marks, Ranks, Statistics

LOT = np.uint32(31)


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
    counts_ER: Ints,
    lots_ERL: Lots | None,
    epochs_E: Ranks,
    first: int,
) -> None:
    """Counts rows in (change 1) or out (change -1), by rank, by epoch and rank where there are epochs, and by lot."""
    places_N = np.empty(len(statistics_N2), np.int64)
    ranks(statistics_N2, per_tick, places_N)
    places_N = np.clip(places_N - first, 0, len(counts_R) - 1)
    np.add.at(counts_R, places_N, change)
    epochs_N = np.searchsorted(epochs_E, statistics_N2[:, 1].astype(np.int64), side="right")
    if len(epochs_E):
        np.add.at(counts_ER, (epochs_N, places_N), change)
    if lots_ERL is not None:
        np.add.at(lots_ERL, (epochs_N, places_N, (statistics_N2[:, 0] & LOT).astype(np.int64)), change)


def touch(
    statistics_S2: Statistics,
    scores_S2: Scores,
    marks_S: Marks,
    slots_N: Slots,
    added_N: Scores,
    now: int,
    per_tick: int,
    decay_T: Scores,
    floor: np.float32,
    lucky: int,
    border: int,
    counts_R: Ranks,
    counts_ER: Ints,
    lots_ERL: Lots | None,
    epochs_E: Ranks,
    first: int,
) -> int:
    """Adds to the scores of unique slots, which are `floor` then or more, counts their rows under the new rank, and
    marks them dirty. To rows without a score whose lot is below `lucky` twice as much is added. Returns how many had no
    score yet, or were of rank `border` or lower."""
    count(statistics_S2[slots_N], -1, per_tick, counts_R, counts_ER, lots_ERL, epochs_E, first)
    old_N2 = statistics_S2[slots_N]
    lots_N = old_N2[:, 0] & LOT
    before_N, after_N = np.empty(len(slots_N), np.int64), np.empty(len(slots_N), np.int64)
    ranks(old_N2, per_tick, before_N)
    tick = int(now) // int(per_tick)
    ages_N = tick - old_N2[:, 1].astype(np.int64) // int(per_tick)
    alive_N = (ages_N < len(decay_T)) & (old_N2[:, 0] >= 1 << 23)
    factors_N = np.where(alive_N, decay_T[np.where(alive_N, ages_N, 0)], np.float32(0))
    added_N = np.where(old_N2[:, 0] < lucky, added_N * np.float32(2), added_N)
    added_N = np.maximum(np.where(alive_N, scores_S2[slots_N, 0] * factors_N, np.float32(0)) + added_N, floor)
    new_N2 = np.stack([added_N.astype(np.float32).view(np.uint32) & ~LOT | lots_N, np.full(len(slots_N), now)], axis=1)
    new_N2 = new_N2.astype(np.uint32)
    ranks(new_N2, per_tick, after_N)
    fell_N = after_N < before_N
    new_N2[fell_N, 0] = ((before_N - tick) << 17)[fell_N].astype(np.uint32) | lots_N[fell_N]
    same_N = (old_N2[:, 1] == now) & (new_N2[:, 0] <= old_N2[:, 0])
    new_N2[same_N, 0] = old_N2[same_N, 0] + np.uint32(32)
    statistics_S2[slots_N] = new_N2
    count(new_N2, 1, per_tick, counts_R, counts_ER, lots_ERL, epochs_E, first)
    marks_S[slots_N] |= np.uint16(4 | 32)
    return int(((before_N <= border) | (old_N2[:, 0] < 32)).sum())


def select(
    statistics_S2: Statistics, marks_S: Marks, start: int, end: int, highest: int, per_tick: int, out_N: Slots
) -> tuple[int, int]:
    """Slots in [start, end) that are used, may go and are not going, unpinned and of rank `highest` or lower."""
    ranks_S = np.empty(len(marks_S), np.int64)
    ranks(statistics_S2, per_tick, ranks_S)
    wanted_S = (marks_S & 25 == 1) & (marks_S < 64) & (ranks_S <= highest)
    return first_of(start + np.flatnonzero(wanted_S[start:end]), start, end, out_N)


def first_of(found_N: Slots, start: int, end: int, out_N: Slots) -> tuple[int, int]:
    """Copies found slots into `out_N`, as many as fit; returns how many, and where the search for them stopped."""
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
    """One more or one less step holds these slots; a negative slot is skipped; 1023 pins stay."""
    for slot in slots_N[slots_N >= 0]:
        pins, flags = divmod(int(marks_S[slot]), 64)
        if pins < 1023:
            marks_S[slot] = max(pins + change, 0) * 64 + flags
