"""What is sent and what is held back: one case each. `test_sparsify_machine` has the invariant over all of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from ps.errors import (
    ConfigError,
    DimensionMismatch,
    DtypeMismatch,
    InvalidArgument,
    LengthMismatch,
    NonFiniteGradient,
    ResourceExhausted,
)
from ps.nn.sparsify.residual_arrays import KEY_BYTES
from ps.nn.sparsify.sparsifiers import Sparsifier, Threshold, TopK

F32 = np.float32


@pytest.fixture
def make():
    """Sparsifiers that are closed in the end."""
    made = []

    def sparsifier(config, dim=2, **options):
        made.append(Sparsifier(config, dim, **options))
        return made[-1]

    yield sparsifier
    for each in made:
        each.close()


def rows_of(dim, n):
    """max_bytes for so many rows."""
    return n * (4 * dim + KEY_BYTES)


def grads(*rows):
    return np.array(rows, F32)


def ids(*values):
    return np.array(values, np.int64)


def select(sparsifier, ids_N, grads_ND, always=None):
    """As if the push went through at once: rows sent of the step and others, by id."""
    selection = sparsifier.select(ids_N, grads_ND, always)
    sparsifier.commit(selection)
    return selection


def by_id(held):
    return dict(zip(held.ids_R.tolist(), held.grads_RD.tolist(), strict=True))


def test_by_rows_those_of_the_norm_are_sent_whole_and_others_wait_for_their_next_gradient(make):
    sparsifier = make(Threshold(5.0))
    first = select(sparsifier, ids(7, -1, 9), grads([3, 4], [3, 3.9], [0, 0])).selected
    assert (first.rows_R.tolist(), first.grads_RD.tolist(), first.elements) == ([0], [[3, 4]], False)
    assert sparsifier.rows_held == 1  # nothing is held of a gradient of 0
    second = select(sparsifier, ids(9, -1), grads([1, 1], [0, 1])).selected
    assert (second.rows_R.tolist(), second.grads_RD.tolist()) == ([1], [[3, F32(4.9)]])
    assert by_id(select(sparsifier, ids(), grads().reshape(0, 2)).others) == {}
    assert by_id(sparsifier.flush().others) == {9: [1, 1]}


def test_by_elements_only_the_large_ones_are_sent(make):
    sparsifier = make(Threshold(2.0, by="elements"))
    first = select(sparsifier, ids(1, 2), grads([-2, 1], [1, 1])).selected
    assert (first.rows_R.tolist(), first.grads_RD.tolist(), first.elements) == ([0], [[-2, 0]], True)
    second = select(sparsifier, ids(2, 1), grads([1, 0.5], [0, 1])).selected
    assert (second.rows_R.tolist(), second.grads_RD.tolist()) == ([0, 1], [[2, 0], [0, 2]])
    assert by_id(sparsifier.flush().others) == {2: [0, 1.5]}


@pytest.mark.parametrize("by", ["rows", "elements"])
def test_rows_that_must_be_are_sent_whole_however_small(make, by):
    sparsifier = make(Threshold(100.0, by=by))
    select(sparsifier, ids(1), grads([1, 2]))
    sent = select(sparsifier, ids(5, 1, 6), grads([0, 0], [1, 1], [1, 1]), np.array([True, True, False])).selected
    assert (sent.rows_R.tolist(), sent.grads_RD.tolist()) == ([0, 1], [[0, 0], [2, 3]])
    assert by_id(sparsifier.flush().others) == {6: [1, 1]}


@pytest.mark.parametrize(
    "config", [Threshold(0.0), Threshold(0.0, "elements"), TopK(1.0, hold=None), TopK(1.0, "elements", hold=None)]
)
def test_at_density_1_all_is_sent_zeros_too(make, config):
    sparsifier = make(config)
    sent = select(sparsifier, ids(1, 2), grads([0, 0], [0, 1e-40])).selected
    assert (sent.rows_R.tolist(), sparsifier.rows_held) == ([0, 1], 0)


@pytest.mark.parametrize("by", ["rows", "elements"])
def test_without_error_feedback_the_rest_is_gone(make, by):
    sparsifier = make(TopK(0.5, by=by, error_feedback=False, hold=None))
    for _ in range(3):
        selection = select(sparsifier, ids(1, 2), grads([4, 4], [1, 1]))
        assert by_id(selection.by_id()) == {1: [4, 4]}
        assert sparsifier.rows_held == 0
    assert by_id(select(sparsifier, ids(2), grads([5, 5])).by_id()) == {2: [5, 5]}


def test_over_the_bound_the_largest_are_sent_be_they_of_the_step_or_not(make):
    sparsifier = make(Threshold(100.0), max_bytes=rows_of(2, 3) + 1)
    select(sparsifier, ids(1, 2, 3), grads([9, 0], [1, 0], [5, 0]))
    selection = select(sparsifier, ids(3, 4, 5), grads([0, 1], [2, 0], [8, 0]))
    assert by_id(selection.others) == {1: [9, 0]}
    assert (selection.selected.rows_R.tolist(), selection.selected.grads_RD.tolist()) == ([2], [[8, 0]])
    assert by_id(sparsifier.flush().others) == {2: [1, 0], 3: [5, 1], 4: [2, 0]}


def test_places_of_which_nothing_is_held_any_more_are_taken_first(make):
    """Of rows sent in the step itself, and of those sent before it: nothing is sent for want of room."""
    sparsifier = make(Threshold(10.0), max_bytes=rows_of(2, 2))
    select(sparsifier, ids(1, 2), grads([9, 0], [8, 0]))
    sent = select(sparsifier, ids(1, 3), grads([9, 0], [1, 0]))
    assert (sent.selected.rows_R.tolist(), by_id(sent.others)) == ([0], {})
    select(sparsifier, ids(2), grads([9, 0]))
    sent = select(sparsifier, ids(4), grads([7, 0]))
    assert (len(sent.selected), by_id(sent.others)) == (0, {})
    assert by_id(sparsifier.flush().others) == {3: [1, 0], 4: [7, 0]}


def test_a_bound_below_one_row_is_refused():
    with pytest.raises(ConfigError, match=r"max_bytes 55 holds no residual of dim 2: one takes 56 bytes"):
        Sparsifier(TopK(hold=None), 2, max_bytes=55)


def test_memory_stays_within_the_bound(make):
    """As counted by the pages that were committed, but for those at the ends of arrays."""
    sparsifier = make(Threshold(100.0), dim=16, max_bytes=4 << 20)
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids_N = rng.permutation(1 << 20)[:4000]
        select(sparsifier, ids_N, rng.standard_normal((4000, 16)).astype(F32))
    assert sparsifier.nbytes <= 4 << 20 < sparsifier.nbytes + 101
    assert sparsifier._store.committed_bytes <= (4 << 20) + (64 << 10)


def test_a_selection_that_was_not_applied_is_held_again_with_what_came_since(make):
    sparsifier = make(Threshold(5.0), max_bytes=rows_of(2, 1))
    lost = sparsifier.select(ids(1, 2, 3), grads([9, 0], [3, 0], [4, 0]))
    assert lost.selected.rows_R.tolist() == [0, 2]
    select(sparsifier, ids(1), grads([-6, 1]))  # sent: more than the threshold
    select(sparsifier, ids(2), grads([0, 1]))
    sparsifier.rollback(lost)
    assert sparsifier.rows_held == 3  # above the bound, until the next one
    selection = select(sparsifier, ids(8), grads([0, 0]))
    assert by_id(selection.others) == {1: [9, 0], 3: [4, 0]}
    assert by_id(sparsifier.flush().others) == {2: [3, 1]}


def test_a_selection_has_one_fate(make):
    sparsifier, other = make(Threshold(5.0)), make(Threshold(5.0))
    selection = sparsifier.select(ids(1), grads([9, 0]))
    with pytest.raises(InvalidArgument, match="selection 0 is not open here"):
        other.commit(selection)
    with pytest.raises(InvalidArgument, match="1 selections are open"):
        sparsifier.state_dict()
    sparsifier.commit(selection)
    for again in (sparsifier.commit, sparsifier.rollback):
        with pytest.raises(InvalidArgument, match="commit or roll back each one once"):
            again(selection)
    assert sparsifier.rows_held == 0
    sparsifier.state_dict()


def test_what_was_flushed_and_not_applied_is_held_again(make):
    sparsifier = make(Threshold(5.0))
    select(sparsifier, ids(4, 1), grads([1, 2], [3, 0]))
    flushed = sparsifier.flush()
    assert (flushed.others.ids_R.tolist(), len(flushed.selected), sparsifier.rows_held) == ([1, 4], 0, 0)
    sparsifier.rollback(flushed)
    assert by_id(sparsifier.flush().others) == {1: [3, 0], 4: [1, 2]}


def test_forgotten_rows_hand_back_what_was_held(make):
    sparsifier = make(Threshold(5.0))
    select(sparsifier, ids(1, 2), grads([1, 0], [2, 0]))
    assert by_id(sparsifier.forget(ids(9, 2))) == {2: [2, 0]}
    assert by_id(sparsifier.flush().others) == {1: [1, 0]}
    select(sparsifier, ids(1, 2), grads([1, 0], [2, 0]))
    select(sparsifier, ids(1), grads([9, 0]))
    assert by_id(sparsifier.forget(ids(1, 2))) == {2: [2, 0]}  # all of 1 has been sent


@pytest.mark.parametrize("by", ["rows", "elements"])
def test_a_trainer_that_starts_again_selects_as_if_it_had_not_stopped(make, by):
    config = TopK(0.2, by=by, reestimate_every=3, sample=20, warm_up=5, hold=None)
    rng = np.random.default_rng(1)
    steps = [(rng.permutation(60)[:40], rng.standard_normal((40, 4)).astype(F32)) for _ in range(16)]
    straight, stopped = (make(config, dim=4, seed=3) for _ in range(2))
    for step in steps[:8]:
        select(straight, *step)
        select(stopped, *step)
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = make(config, dim=4, seed=3)
    select(resumed, *steps[0])
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for step in steps[8:]:
        one, other = (select(each, *step).selected for each in (straight, resumed))
        np.testing.assert_array_equal(one.rows_R, other.rows_R)
        np.testing.assert_array_equal(one.grads_RD, other.grads_RD)
    assert by_id(straight.flush().others) == by_id(resumed.flush().others)


def test_a_state_of_another_kind_is_refused_and_nothing_changes(make):
    sparsifier = make(Threshold(5.0))
    select(sparsifier, ids(1), grads([1, 0]))
    with pytest.raises(InvalidArgument, match=r"the state has {'dim': 3}"):
        sparsifier.load_state_dict(make(Threshold(5.0), dim=3).state_dict())
    with pytest.raises(InvalidArgument, match="elements"):
        sparsifier.load_state_dict(make(Threshold(5.0, "elements")).state_dict())
    with pytest.raises(InvalidArgument, match=r"format"):
        sparsifier.load_state_dict({})
    assert by_id(sparsifier.flush().others) == {1: [1, 0]}


@pytest.mark.parametrize(
    ("error", "args"),
    [
        (DtypeMismatch, (np.zeros(1, np.int32), grads([1, 1]))),
        (DtypeMismatch, (ids(1), np.ones((1, 2)))),
        (LengthMismatch, (ids(1, 2), grads([1, 1]))),
        (LengthMismatch, (ids(1), grads([1, 1]), np.zeros(2, np.bool_))),
        (LengthMismatch, (ids(1), grads([1, 1]), np.zeros(1, np.uint8))),
        (DimensionMismatch, (ids(1), grads([1, 1, 1]))),
        (NonFiniteGradient, (ids(1, 2), grads([1, 1], [np.nan, 1]))),
        (NonFiniteGradient, (ids(1, 2), grads([1, 1], [-np.inf, 1]))),
    ],
)
def test_what_is_wrong_changes_nothing(make, error, args):
    sparsifier = make(TopK(0.5, hold=None))
    with pytest.raises(error):
        sparsifier.select(*args)
    assert (sparsifier.rows_held, sparsifier.estimates) == (0, 0)
    sparsifier.state_dict()


class Full:
    """A host without memory, from when it is told so."""

    huge_pages = False
    full = False

    def take(self, n):
        if self.full:
            raise ResourceExhausted("no memory")

    def give(self, n):
        pass


def test_where_the_host_has_no_memory_what_cannot_be_held_is_sent(make):
    memory = Full()
    sparsifier = make(Threshold(1e9), dim=64, max_bytes=1 << 20, memory=memory)
    select(sparsifier, ids(1), np.ones((1, 64), F32))
    memory.full = True
    ids_N = np.arange(1, 1001)
    sent = select(sparsifier, ids_N, np.ones((1000, 64), F32)).selected
    assert sent.rows_R.tolist() == list(range(1, 1000))  # 1 has a place
    assert by_id(sparsifier.flush().others) == {1: [2] * 64}


def test_threads_that_select_and_settle_lose_nothing(make):
    """Steps are selected on one thread while pushes of earlier ones end on another."""
    from concurrent.futures import ThreadPoolExecutor

    sparsifier = make(TopK(0.3, reestimate_every=4, hold=None), max_bytes=rows_of(2, 50))
    rng = np.random.default_rng(2)
    true_ND, applied_ND = np.zeros((200, 2)), np.zeros((200, 2))

    def settle(selection, applied):
        if applied:
            held = selection.by_id()
            applied_ND[held.ids_R] += held.grads_RD
            sparsifier.commit(selection)
        else:
            sparsifier.rollback(selection)

    with ThreadPoolExecutor(1) as pool:
        settled = []
        for step in range(200):
            ids_N, grads_ND = rng.permutation(200)[:60], rng.integers(-9, 9, (60, 2)).astype(F32)
            true_ND[ids_N] += grads_ND
            settled.append(pool.submit(settle, sparsifier.select(ids_N, grads_ND), step % 3 > 0))
        for future in settled:
            future.result()
    held = sparsifier.flush().others
    applied_ND[held.ids_R] += held.grads_RD
    np.testing.assert_array_equal(applied_ND, true_ND)
