"""Scores and ranks: equal to the numpy specification, and what they promise about order and time."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from ps.kernels.ranking import score as kernels
from ps.kernels.reference.ranking import score as reference

from .strategies import frozen, given, same_bytes

F32 = np.float32
cases = given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 5000), st.integers(0, 2**32))


def rows(slots, now, seed):
    """Statistics of rows last pushed at different times, and marks of all kinds."""
    rng = np.random.default_rng(seed)
    statistics_S2 = np.empty((slots, 2), np.uint32)
    statistics_S2.view(F32)[:, 0] = np.where(
        rng.random(slots) < 0.2, 0, rng.exponential(size=slots) * 10.0 ** rng.integers(-9, 9)
    )
    statistics_S2[:, 1] = rng.integers(0, now + 1, slots)
    marks_S = (rng.integers(0, kernels.PIN, slots) | (kernels.PIN * rng.integers(0, 3, slots))).astype(np.uint16)
    return rng, statistics_S2, marks_S


ONE = np.uint32(1)


def touch(statistics_S2, slots_N, added_N, now, per_tick=ONE, floor=0):
    """Without counting by age or lot."""
    return kernels.touch(
        statistics_S2,
        statistics_S2.view(F32),
        np.zeros(len(statistics_S2), np.uint16),
        slots_N,
        added_N,
        np.uint32(now),
        per_tick,
        kernels.decay_table(),
        F32(floor),
        np.uint32(0),
        0,
        np.zeros(kernels.RANKS, np.int64),
        np.zeros((1, kernels.RANKS), np.int64),
        None,
        np.zeros(0, np.int64),
        0,
    )


@cases
def test_touch_count_and_ranks_are_those_of_the_reference(slots, n, now, seed):
    rng, statistics_S2, marks_S = rows(slots, now, seed)
    slots_N = rng.permutation(slots)[:n]
    added_N = rng.exponential(size=len(slots_N)).astype(F32)
    first, per_tick = int(rng.integers(0, 9000)), np.uint32(rng.integers(1, 4))
    fresh_N = slots_N[rng.random(len(slots_N)) < 0.2]  # rows that have just been created
    statistics_S2[fresh_N] = np.stack([rng.integers(0, kernels.LOTS, len(fresh_N)), np.full(len(fresh_N), now)], axis=1)
    at_once_N = slots_N[rng.random(len(slots_N)) < 0.2]  # touched before at the same time
    statistics_S2[at_once_N, 1] = now
    floor, lucky, border = F32(rng.choice([0, 0.5, 4])), np.uint32(rng.choice([0, 9])), int(rng.integers(0, 9000))
    epochs_E = np.sort(rng.choice(now + 10, int(rng.integers(0, 4)), replace=False))
    results = []
    for module, given_N, given_added_N in ((kernels, slots_N, added_N), (reference, frozen(slots_N), frozen(added_N))):
        statistics, marks = statistics_S2.copy(), marks_S.copy()
        lots = (len(epochs_E) + 1, kernels.RANKS, kernels.LOTS) if seed % 2 else None
        counted, again = (
            (
                np.zeros(kernels.RANKS, np.int64),
                np.zeros((len(epochs_E) + 1, kernels.RANKS), np.int64),
                lots and np.zeros(lots, np.int32),
            )
            for _ in range(2)
        )
        module.count(statistics, 1, per_tick, *counted, epochs_E, first)
        assert counted[0].sum() == slots
        missed = module.touch(
            statistics,
            statistics.view(F32),
            marks,
            given_N,
            given_added_N,
            np.uint32(now),
            per_tick,
            kernels.decay_table(),
            floor,
            lucky,
            border,
            *counted,
            epochs_E,
            first,
        )
        module.count(statistics, 1, per_tick, *again, epochs_E, first)
        if not lots:
            counted, again = counted[:2], again[:2]
        for left, right in zip(counted, again, strict=True):
            assert same_bytes(left, right), "the counts moved along with the rows"
        if len(epochs_E):
            assert same_bytes(counted[1].sum(axis=0), counted[0])
        if lots:
            assert same_bytes(counted[2].sum(axis=(0, 2), dtype=np.int64), counted[0])
        ranks_N = np.empty(slots, np.int64)
        module.ranks(statistics, per_tick, ranks_N)
        results.append((statistics, marks, *counted, ranks_N, np.array(missed)))
    for left, right in zip(*results, strict=True):
        assert same_bytes(left, right)


@given(st.integers(1, 60), st.integers(0, 5000), st.integers(0, 2**32))
def test_every_touch_shows(slots, now, seed):
    rng, statistics_S2, _ = rows(slots, now, seed)
    statistics_S2[rng.random(slots) < 0.7, 1] = now
    seen, per_tick = [], np.uint32(rng.integers(1, 4))
    for added in (0, 0, *rng.integers(0, 2, 3)):
        seen.append([tuple(row) for row in statistics_S2[:, ::-1].tolist()])
        touch(statistics_S2, np.arange(slots), np.full(slots, added, F32), now, per_tick)
    for before, after in itertools.pairwise(seen):
        assert all(old < new for old, new in zip(before, after, strict=True)), "(stamp, score) rises"


@cases
def test_outrank_is_that_of_the_reference(slots, n, now, seed):
    rng, statistics_S2, _ = rows(slots, now, seed)
    slots_N = rng.integers(-1, slots, n)
    per_tick, out_N, expected_N = np.uint32(rng.integers(1, 4)), np.ones(n, np.bool_), np.zeros(n, np.bool_)
    rank = int(rng.choice([-(1 << 62), 1 << 62, rng.integers(0, 9000)]))
    kernels.outrank(statistics_S2, frozen(slots_N), per_tick, rank, out_N)
    reference.outrank(statistics_S2, slots_N, per_tick, rank, expected_N)
    assert same_bytes(out_N, expected_N)


@cases
def test_select_mark_and_pin_are_those_of_the_reference(slots, n, now, seed):
    rng, statistics_S2, marks_S = rows(slots, now, seed)
    start = int(rng.integers(0, slots))
    highest = int(rng.integers(0, 9000))
    found_N, expected_N = (np.full(n, -7) for _ in range(2))
    where = (start, slots, highest, np.uint32(rng.integers(1, 4)))
    found = kernels.select(statistics_S2, marks_S, *where, found_N)
    assert found == reference.select(statistics_S2, marks_S, *where, expected_N)
    assert same_bytes(found_N, expected_N)
    slots_N = np.where(rng.random(slots) < 0.2, -1, rng.permutation(slots))
    for name, arguments in (("mark", (3, 4)), ("mark", (0, 0xFFFF)), ("pin", (1,)), ("pin", (-1,))):
        out_S, expected_S = marks_S.copy(), marks_S.copy()
        getattr(kernels, name)(out_S, frozen(slots_N), *arguments)
        getattr(reference, name)(expected_S, slots_N, *arguments)
        assert same_bytes(out_S, expected_S)


@cases
def test_a_touch_never_lowers_a_rank(slots, n, now, seed):
    rng, statistics_S2, _ = rows(slots, now, seed)
    before_N, after_N = np.empty(slots, np.int64), np.empty(slots, np.int64)
    per_tick = np.uint32(rng.integers(1, 4))
    kernels.ranks(statistics_S2, per_tick, before_N)
    added_N = np.where(rng.random(slots) < 0.5, 0, rng.exponential(size=slots)).astype(F32)
    touch(statistics_S2, np.arange(slots), added_N, now, per_tick)
    kernels.ranks(statistics_S2, per_tick, after_N)
    assert (after_N >= before_N).all()
    assert (statistics_S2[:, 1] == now).all()


@cases
def test_every_touch_changes_the_statistics_and_leaves_the_lot(slots, n, now, seed):
    """Also one that adds nothing, at the time of the last one."""
    rng, statistics_S2, _ = rows(slots, now, seed)
    lots_S = statistics_S2[:, 0] % kernels.LOTS
    seen = [statistics_S2.copy()]
    for _ in range(4):
        touch(statistics_S2, np.arange(slots), rng.choice([0, 1], slots).astype(F32), now, floor=rng.choice([0, 1]))
        assert all((statistics_S2 != before).any(axis=1).all() for before in seen)
        assert (statistics_S2[:, 0] % kernels.LOTS == lots_S).all()
        seen.append(statistics_S2.copy())


def test_a_row_of_a_lucky_lot_begins_with_twice_as_much():
    statistics = np.array([[0, 5], [1, 5], [2, 5], [F32(1).view(np.uint32), 5]], np.uint32)
    counts = np.zeros(kernels.RANKS, np.int64), np.zeros((1, kernels.RANKS), np.int64), None, np.zeros(0, np.int64)
    marks, times = np.zeros(4, np.uint16), (np.uint32(5), ONE, kernels.decay_table(), F32(0), np.uint32(2))
    kernels.touch(statistics, statistics.view(F32), marks, np.arange(4), np.full(4, 3, F32), *times, 0, *counts, 0)
    assert kernels.scores(statistics).tolist() == [6, 6, 3, 4]


def test_a_touch_that_adds_nothing_leaves_a_score_of_nothing():
    statistics = np.array([[7, 5]], np.uint32)
    touch(statistics, np.array([0]), np.zeros(1, F32), 5)
    assert statistics[0, 0] != 7
    assert kernels.scores(statistics).tolist() == [0]


def test_lots_are_drawn_evenly_and_anew_for_each_life():
    hashes_N = np.random.default_rng(0).integers(0, 2**64, 32_000, dtype=np.uint64)
    lots_N, others_N = kernels.lots(hashes_N, 7), kernels.lots(hashes_N, 8)
    for drawn_N in (lots_N, others_N, (lots_N + others_N) % kernels.LOTS):
        counts_L = np.bincount(drawn_N, minlength=kernels.LOTS)
        assert len(counts_L) == kernels.LOTS
        assert 850 < counts_L.min() <= counts_L.max() < 1150


def test_a_slot_pinned_too_often_stays_pinned():
    marks_S, slot_N = np.array([kernels.USED], np.uint16), np.array([0])
    for _ in range(5000):
        kernels.pin(marks_S, slot_N, 1)
    for _ in range(5000):
        kernels.pin(marks_S, slot_N, -1)
    assert marks_S[0] == kernels.MAX_PINS * kernels.PIN + kernels.USED


@given(st.floats(2**-20, 2**20, width=32), st.floats(2**-20, 2**20, width=32), st.integers(0, 500), st.integers(0, 500))
def test_rank_orders_rows_as_their_decayed_scores_do_at_any_time(left, right, left_stamp, right_stamp):
    """Within the step of the cut mantissa: 1/64 for the bits, and 9 % for taking the mantissa for its logarithm."""
    statistics = np.array([[0, left_stamp], [0, right_stamp]], np.uint32)
    statistics.view(F32)[:, 0] = left, right
    ranks_N = np.empty(2, np.int64)
    kernels.ranks(statistics, ONE, ranks_N)
    decayed = [
        float(score) * 2.0 ** ((stamp - 500) / 64) for score, stamp in ((left, left_stamp), (right, right_stamp))
    ]
    if decayed[0] > 1.13 * decayed[1]:
        assert ranks_N[0] >= ranks_N[1]


def test_a_score_halves_in_a_half_life_and_is_gone_after_thirty_two():
    statistics = np.array([[0, 100]] * 3, np.uint32)
    statistics.view(F32)[:, 0] = 8
    for slot, now in enumerate((100 + 64, 100 + 32, 100 + 64 * 32)):
        touch(statistics, np.array([slot]), np.ones(1, F32), now)
    np.testing.assert_allclose(statistics.view(F32)[:, 0], [5, 1 + 8 / 2**0.5, 1], rtol=2**-18)


@given(st.integers(1, 60), st.integers(0, 5000), st.integers(0, 2**32))
def test_a_score_that_is_given_never_lets_an_older_form_of_its_row_outrank_it(slots, now, seed):
    rng, statistics_S2, _ = rows(slots, now, seed)
    statistics_S2[rng.random(slots) < 0.3, 1] = now
    given_S2 = rows(slots, now, seed + 1)[1]
    per_tick = np.uint32(rng.integers(1, 4))
    risen_S2 = np.stack([kernels.risen(statistics_S2, given_S2[:, 0], now, per_tick), np.full(slots, now)], axis=1)
    risen_S2 = risen_S2.astype(np.uint32)
    before_S, after_S, wanted_S = (np.empty(slots, np.int64) for _ in range(3))
    kernels.ranks(statistics_S2, per_tick, before_S)
    kernels.ranks(risen_S2, per_tick, after_S)
    given_S2[:, 1] = now
    kernels.ranks(given_S2, per_tick, wanted_S)
    assert (after_S >= np.maximum(before_S, wanted_S)).all()
    assert (risen_S2[:, 0] % kernels.LOTS == statistics_S2[:, 0] % kernels.LOTS).all(), "a lot stays"
    free_S = (wanted_S > before_S) & (statistics_S2[:, 1] != now)
    assert (risen_S2[free_S, 0] // kernels.LOTS == given_S2[free_S, 0] // kernels.LOTS).all(), "else it is as given"
    same_S = statistics_S2[:, 1] == now
    assert (risen_S2[same_S, 0] > statistics_S2[same_S, 0]).all(), "a touch shows"
