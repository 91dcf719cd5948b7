"""Rows that have converged are sent every K-th step. `test_sparsify_machine` has the invariant for them too."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ps.errors import ConfigError, DtypeMismatch, LengthMismatch
from ps.kernels.index.hashing import hash_ids
from ps.nn.sparsify.convergence import STATISTIC_BYTES, ConvergenceStore
from ps.nn.sparsify.sparsifiers import Relaxed, Sparsifier, Threshold, TopK

F32 = np.float32


@pytest.fixture
def make():
    """Sparsifiers that are closed in the end."""
    made = []

    def sparsifier(relaxed, config=Threshold, dim=2, **options):
        config = config(0.0, relaxed=relaxed) if config is Threshold else config
        made.append(Sparsifier(config, dim, **options))
        return made[-1]

    yield sparsifier
    for each in made:
        each.close()


def step(sparsifier, ids, grads, values=None, always=None, important=None):
    """Ids sent, if each has this gradient in every element, and this value."""
    ids_N = np.array(ids, np.int64)
    grads_ND = np.repeat(np.broadcast_to(np.array(grads, F32), len(ids))[:, None], 2, axis=1)
    values_ND = np.repeat(np.broadcast_to(np.array(100 if values is None else values, F32), len(ids))[:, None], 2, 1)
    flags = [None if flag is None else np.array(flag, np.bool_) for flag in (always, important)]
    selection = sparsifier.select(ids_N, grads_ND, flags[0], rows_UD=values_ND, important_U=flags[1])
    sparsifier.commit(selection)
    return by_id(selection.by_id())


def by_id(held):
    """The first element of each."""
    return dict(zip(held.ids_R.tolist(), held.grads_RD[:, 0].tolist(), strict=True))


def test_a_row_of_every_step_is_sent_every_kth_step_with_all_that_came_between(make):
    sparsifier = make(Relaxed(every=4, window=2))
    sent = [step(sparsifier, [7], 1.0).get(7, 0) for _ in range(40)]
    assert sent[0] == 1  # until it has been seen twice
    times = np.flatnonzero(sent)
    assert set(np.diff(times[2:])) == {4}
    assert set(sent[times[3] :]) == {0, 4}
    assert sparsifier.rows_waited == np.count_nonzero(np.array(sent) == 0)


def test_rows_are_due_in_different_steps(make):
    sparsifier = make(Relaxed(every=8, window=1))
    ids = list(range(800))
    sent = [len(step(sparsifier, ids, 1.0)) for _ in range(24)]
    assert max(sent[8:]) < 200
    assert sum(sent[8:16]) == sum(sent[16:]) == 800


def test_a_row_that_comes_rarely_does_not_wait_for_its_kth_time(make):
    """What is held is never older than K steps when the row comes again."""
    sparsifier = make(Relaxed(every=4, window=1))
    sent = [step(sparsifier, [7] if number % 5 == 0 else [8], 1.0) for number in range(60)]
    assert all(7 in each for each in sent[5::5])


def test_only_important_rows_of_small_gradients_wait(make):
    sparsifier = make(Relaxed(every=1000, ratio=0.01, window=3))
    for _ in range(20):
        sent = step(sparsifier, [1, 2, 3, 4], [0.9, 0.9, 1.1, 0.9], important=[True, False, True, True])
    assert sorted(sent) == [2, 3]


def test_a_row_whose_gradients_grow_stops_waiting_and_all_that_was_held_goes(make):
    sparsifier = make(Relaxed(every=1000, ratio=0.1, window=2))
    for _ in range(10):
        step(sparsifier, [1], 1.0)
    held = float(sparsifier._store.all().grads_RD[0, 0])
    assert held > 0
    sent = step(sparsifier, [1], 50.0)  # the mean is 0.25
    assert sent == {1: held + 50}
    assert sparsifier.rows_held == 0


def test_new_rows_are_synchronous_and_begin_anew(make):
    sparsifier = make(Relaxed(every=1000, window=3))
    for _ in range(8):
        step(sparsifier, [1, 2], 1.0)
    assert step(sparsifier, [1, 2], 1.0, always=[True, False]).keys() == {1}
    for _ in range(2):
        assert step(sparsifier, [1, 2], 1.0).keys() == {1}  # it has been evicted, say: what was seen is of another
    assert step(sparsifier, [1, 2], 1.0) == {}


def test_forgotten_rows_begin_anew(make):
    sparsifier = make(Relaxed(every=1000, window=2))
    for _ in range(4):
        step(sparsifier, [1, 2], 1.0)
    sparsifier.forget(np.array([1, 9]))
    assert step(sparsifier, [1, 2], 1.0).keys() == {1}


@pytest.mark.parametrize("by", ["rows", "elements"])
def test_a_waiting_row_waits_however_large_and_is_sent_whole_when_due(make, by):
    sparsifier = make(None, Threshold(3.0, by=by, relaxed=Relaxed(every=4, window=1)))
    step(sparsifier, [1, 2], [50.0, 1.0], values=1e6)
    sent = [step(sparsifier, [1, 2], [50.0, 1.0], values=1e6) for _ in range(16)]
    assert [each[1] for each in sent if 1 in each][1:] == [200.0] * (sum(1 in each for each in sent) - 1)
    assert [each[2] for each in sent if 2 in each][1:] == [4.0] * (sum(2 in each for each in sent) - 1)
    assert 3 <= sum(1 in each for each in sent) <= 5


def test_the_threshold_is_estimated_from_the_other_rows(make):
    """Those that wait are held for long, so the largest residuals are theirs."""
    sparsifier = make(None, TopK(0.1, reestimate_every=1, relaxed=Relaxed(every=100, window=1), hold=None))
    rng = np.random.default_rng(0)
    ids, important = list(range(100)), [number < 50 for number in range(100)]
    for _ in range(30):
        sent = step(sparsifier, ids, [*([5.0] * 50), *rng.uniform(0, 1, 50)], values=1e4, important=important)
        others = [row for row in sent if row >= 50]
        assert 1 <= len(others) <= 6


def test_over_the_bound_waiting_rows_are_sent(make):
    sparsifier = make(Relaxed(every=1000, window=1), max_bytes=3 * (2 * 4 + 36))
    sent = {}
    for _ in range(3):
        sent |= step(sparsifier, [1, 2, 3, 4, 5], [1.0, 5.0, 2.0, 4.0, 3.0], values=1e4)
    assert {2, 4} <= sent.keys()
    assert sparsifier.rows_held <= 3


def test_every_1_relaxes_nothing(make):
    sparsifier = make(Relaxed(every=1, window=1))
    for _ in range(4):
        assert step(sparsifier, [1, 2], 1.0).keys() == {1, 2}
    assert sparsifier.rows_waited == 0


def plain(config, phase, steps):
    """Who is sent in each step, row by row, without a bound."""
    seen = {}
    for number, (ids, sizes, always, important) in enumerate(steps, 1):
        sent = set()
        for row, size, new, may in zip(ids, sizes, always, important, strict=True):
            if new and row in seen:
                seen[row] = [F32(0), 0, seen[row][2]]
            waits = False
            if may and not new:
                mean, n, sent_at = seen.setdefault(row, [F32(0), 0, number - 1])
                n = min(n + 1, config.window)
                mean = mean + (F32(min(1, size / 64)) - mean) / F32(n)
                seen[row] = [mean, n, sent_at]
                due = (number + phase[row]) // config.every != (sent_at + phase[row]) // config.every
                waits = n >= config.window and mean <= F32(config.ratio) and not due
            if not waits:
                sent.add(row)
                if row in seen:
                    seen[row][2] = number
        yield sent


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.0, 0.25, 0.5]), st.integers(0, 2**32))
def test_it_is_what_a_loop_over_rows_does(every, window, ratio, seed):
    rng = np.random.default_rng(seed)
    config = Relaxed(every=every, ratio=ratio, window=window)
    words = np.empty(9, np.uint64)
    hash_ids(np.arange(9), words)
    steps = []
    for _ in range(30):
        ids = rng.permutation(9)[: rng.integers(0, 10)]
        steps.append((ids, rng.choice([0, 16, 32, 64], len(ids)), *(rng.random((2, len(ids))) < [[0.1], [0.8]])))
    sparsifier = Sparsifier(Threshold(0.0, relaxed=config), 2)
    try:
        for made, expected in zip(steps, plain(config, (words % np.uint64(every)).astype(int), steps), strict=True):
            assert step(sparsifier, *made[:2], 64, *made[2:]).keys() == expected
    finally:
        sparsifier.close()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32))
def test_statistics_stay_within_their_bound_and_those_of_the_step_stay(most, seed):
    rng = np.random.default_rng(seed)
    store = ConvergenceStore(most * STATISTIC_BYTES)
    known = {}
    for number in range(1, 30):
        ids_N = rng.permutation(20)[: rng.integers(0, 15)]
        before = {row: record for row, record in known.items() if row in ids_N}
        slots_N = store.find_or_insert(ids_N, number)
        records_S = store.records_S
        assert len(store) <= most
        assert np.count_nonzero(slots_N >= 0) == min(len(ids_N), most) or len(before) > most
        here = slots_N >= 0
        np.testing.assert_array_equal(records_S["id"][slots_N[here]], ids_N[here])
        for row, slot in zip(ids_N, slots_N, strict=True):
            if row in before:
                assert records_S["mean"][slot] == before[row]
        records_S["mean"][slots_N[here]] = rng.random(np.count_nonzero(here))
        known = dict(zip(records_S["id"].tolist(), records_S["mean"].tolist(), strict=True))
        assert (store.find(np.array(sorted(known), np.int64)) >= 0).all()
    store.close()


def test_at_the_bound_those_that_were_not_seen_for_the_longest_go(make):
    store = ConvergenceStore(3 * STATISTIC_BYTES)
    for number, row in enumerate([1, 2, 3, 2, 4], 1):
        store.find_or_insert(np.array([row]), number)
    assert store.all()["id"].tolist() == [2, 3, 4]
    assert store.nbytes == 3 * STATISTIC_BYTES
    store.close()


@pytest.mark.parametrize("max_bytes", [64 << 20, 20 * STATISTIC_BYTES])
def test_a_trainer_that_starts_again_relaxes_as_if_it_had_not_stopped(make, max_bytes):
    rng = np.random.default_rng(1)
    steps = [(rng.permutation(60)[:40], rng.standard_normal((40, 4)).astype(F32)) for _ in range(24)]
    values_ND, important_N = np.full((40, 4), 20, F32), np.arange(40) % 3 > 0
    config = TopK(
        0.3, reestimate_every=3, relaxed=Relaxed(every=4, ratio=0.1, window=2, max_bytes=max_bytes), hold=None
    )

    def select(sparsifier, ids_N, grads_ND):
        selection = sparsifier.select(ids_N, grads_ND, rows_UD=values_ND, important_U=important_N)
        sparsifier.commit(selection)
        return selection.by_id()

    straight, stopped, resumed = (make(None, config, dim=4) for _ in range(3))
    for each in steps[:12]:
        select(straight, *each)
        select(stopped, *each)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    select(resumed, *steps[20])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert straight.rows_waited > 20
    for each in steps[12:]:
        one, other = select(straight, *each), select(resumed, *each)
        np.testing.assert_array_equal(one.ids_R, other.ids_R)
        np.testing.assert_array_equal(one.grads_RD, other.grads_RD)
    assert straight.rows_waited == resumed.rows_waited
    assert straight.statistics_nbytes == resumed.statistics_nbytes <= max_bytes


def test_a_state_from_before_it_was_switched_on_loads_and_rows_are_watched_from_then_on(make):
    before, after = make(None), make(Relaxed(every=1000, window=2))
    step(before, [1], 1.0)
    after.load_state_dict(before.state_dict())
    sent = [step(after, [1], 1.0) for _ in range(3)]
    assert (sent[0], sent[2]) == ({1: 1}, {})
    before.load_state_dict(after.state_dict())
    assert step(before, [1], 1.0)[1] > 1  # what waited is held, and goes


def test_without_values_no_row_waits_and_what_waited_goes(make):
    sparsifier = make(Relaxed(every=1000, window=1))
    for _ in range(3):
        step(sparsifier, [1, 2], 1.0)
    held = by_id(sparsifier._store.all())
    assert held
    selection = sparsifier.select(np.array([1, 2]), np.ones((2, 2), F32))
    assert by_id(selection.by_id()) == {row: 1 + held.get(row, 0) for row in (1, 2)}
    sparsifier.commit(selection)


def test_its_values_are_checked(make):
    sparsifier = make(Relaxed())
    ids_N, grads_ND = np.arange(2), np.ones((2, 2), F32)
    with pytest.raises(DtypeMismatch, match="rows of float64"):
        sparsifier.select(ids_N, grads_ND, rows_UD=np.ones((2, 2)))
    with pytest.raises(LengthMismatch, match=r"rows of shape \(2, 1\)"):
        sparsifier.select(ids_N, grads_ND, rows_UD=np.ones((2, 1), F32))
    with pytest.raises(LengthMismatch, match="`important` is bool"):
        sparsifier.select(ids_N, grads_ND, rows_UD=grads_ND, important_U=np.ones(3, np.bool_))
    assert sparsifier.statistics_nbytes == 0


@pytest.mark.parametrize(
    ("make_config", "says"),
    [
        (lambda: Relaxed(every=0), r"Relaxed.every: 0 is not a whole number from 1 on"),
        (lambda: Relaxed(ratio=1.0), r"Relaxed.ratio: 1.0 is not a share from 0 to below 1"),
        (lambda: Relaxed(share=0), r"Relaxed.share: 0"),
        (lambda: Relaxed(window=0), r"Relaxed.window: 0"),
        (lambda: Relaxed(max_bytes=47), r"Relaxed.max_bytes: 47"),
        (lambda: TopK(relaxed=8, hold=None), r"TopK.relaxed: 8: give Relaxed"),
        (lambda: Threshold(0, relaxed=True), r"Threshold.relaxed: True"),
        (lambda: TopK(relaxed=Relaxed(), error_feedback=False, hold=None), r"TopK.relaxed needs error_feedback"),
    ],
)
def test_what_is_out_of_range_is_named(make_config, says):
    with pytest.raises(ConfigError, match=says):
        make_config()
