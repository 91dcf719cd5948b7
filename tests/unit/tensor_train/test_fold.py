from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.tensor_train.fold import MOST_CHANGE, fold
from ps.tensor_train.shape import tt_shape

from .strategies import given, random_cores, rows_of, seeds, shapes

F32 = np.float32


def relative_errors(cores, index_N, rows_ND):
    off_ND = rows_of(cores, index_N).astype(np.float64) - rows_ND
    return np.linalg.norm(off_ND, axis=1) / np.linalg.norm(rows_ND, axis=1)


def drifted(cores, index_N, drift, seed):
    """Rows that were trained on: off their core values by that share of their norm."""
    rows_ND = rows_of(cores, index_N)
    away_ND = np.random.default_rng(seed).standard_normal(rows_ND.shape)
    away_ND *= drift * np.linalg.norm(rows_ND, axis=1, keepdims=True) / np.linalg.norm(away_ND, axis=1, keepdims=True)
    return (rows_ND + away_ND).astype(rows_ND.dtype)


def test_cores_that_have_diverged_are_left_alone():
    cores = random_cores(tt_shape(60, 8, 4), 0, F32)
    rows_ND = rows_of(cores, np.arange(60))
    for at, scale in enumerate((1e15, 1e15, 1e7)):
        cores._rows[at][:] *= F32(scale)
    before = cores.arrays
    assert not (fold(cores, np.arange(60), rows_ND, 0.5) <= 0.5).any()
    assert all(now.tobytes() == was.tobytes() for was, now in zip(before, cores.arrays, strict=True))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@given(
    shapes(),
    st.integers(1, 30),
    st.sampled_from([0.001, 0.03, 0.3, 3.0]),
    st.sampled_from([0.0, 0.01, 0.3, 9.0]),
    seeds,
)
def test_what_a_fold_changes_and_what_it_says_of_it(kind, shape, n, drift, tolerance, seed):
    """Errors are those of the rows as they are afterwards. Of all cores only the last but one changes; of its slices,
    those with a row within the tolerance, and by MOST_CHANGE of their norm at most."""
    cores = random_cores(shape, seed, kind)
    index_N = np.random.default_rng(seed).permutation(shape.rows)[:n]
    rows_ND = drifted(cores, index_N, drift, seed)
    before = cores.arrays
    errors_N = fold(cores, index_N, rows_ND, tolerance)
    np.testing.assert_allclose(
        errors_N, relative_errors(cores, index_N, rows_ND), rtol=1e-3, atol=100 * np.finfo(kind).eps
    )
    folded = len(before) - 2
    for k, (was, now) in enumerate(zip(before, cores.arrays, strict=True)):
        if k != folded:
            assert now.tobytes() == was.tobytes()
    slice_N = shape.digits(index_N)[folded]
    met = set(slice_N[errors_N <= tolerance].tolist())
    for m, (was, now) in enumerate(zip(before[folded], cores.arrays[folded], strict=True)):
        if m not in met:
            assert now.tobytes() == was.tobytes()
        moved = np.linalg.norm(now.astype(np.float64) - was)
        assert moved <= MOST_CHANGE * np.linalg.norm(was) * (1 + 100 * np.finfo(kind).eps)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_one_row_alone_is_met_by_a_few_steps(number):
    """Conjugate gradients take one for each singular value: as many as the left product has columns by those of the
    right slice, here 1 x 4, 2 x 4 and 4 x 2. Fewer bring the row nearer."""
    shape = tt_shape(1000, 16, 8, number)
    for seed in range(20):
        cores = random_cores(shape, seed)
        index_N = np.array([seed * 37])
        rows_ND = drifted(cores, index_N, 0.01, seed)
        (error,) = fold(cores, index_N, rows_ND, 0.01)
        assert error < 0.01
        cores = random_cores(shape, seed)
        (error,) = fold(cores, index_N, rows_ND, 0.01, steps=8)
        assert error < 1e-8


def test_more_steps_come_nearer():
    """Of some rows that share slices; the change stays below the most that is allowed."""
    shape = tt_shape(1000, 16, 8)
    index_N = np.arange(0, 1000, 41)
    errors = []
    for steps in (0, 1, 3, 9):
        cores = random_cores(shape, 0)
        rows_ND = drifted(cores, index_N, 0.01, 0)
        errors.append(np.linalg.norm(fold(cores, index_N, rows_ND, 1.0, steps=steps)))
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.7 * errors[0]


def test_the_change_is_the_least_squares_solution():
    """With as many steps as it takes, of a slice with more rows than it can meet: numpy's lstsq, slice by slice."""
    shape = tt_shape(2000, 12, (2, 2), p=(20, 4, 25), q=(2, 2, 3))
    cores = random_cores(shape, 5)
    index_N = np.random.default_rng(5).permutation(2000)[:200]
    rows_ND = drifted(cores, index_N, 0.02, 5)
    left, middle, right = cores.arrays
    digits_KN = shape.digits(index_N)
    fold(cores, index_N, rows_ND, 1.0, steps=40)
    for m in range(4):
        of_slice_N = np.flatnonzero(digits_KN[1] == m)
        l_N, t_N = digits_KN[0, of_slice_N], digits_KN[2, of_slice_N]
        # row[x, y, z] = sum of left[x, r] * right[s, z] * slice[r, y, s]: a matrix [rows * x * z, r * s] for every y
        matrix = np.einsum("nxr,nsz->nxzrs", left[l_N, 0], right[t_N, :, :, 0]).reshape(-1, 4)
        targets = rows_ND[of_slice_N].reshape(-1, 2, 2, 3).transpose(0, 1, 3, 2).reshape(-1, 2)
        solved, *_ = np.linalg.lstsq(matrix, targets, rcond=None)
        expected = solved.reshape(2, 2, 2).transpose(0, 2, 1)
        assert np.linalg.norm(expected - middle[m]) < MOST_CHANGE * np.linalg.norm(middle[m])
        np.testing.assert_allclose(cores.arrays[1][m], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("number", [2, 3, 4])
def test_no_rows_change_nothing(number):
    cores = random_cores(tt_shape(1000, 16, 8, number), 0, F32)
    before = cores.arrays
    errors_N = fold(cores, np.empty(0, np.int64), np.empty((0, 16), F32), 0.1)
    assert errors_N.shape == (0,)
    assert all(np.array_equal(was, now) for was, now in zip(before, cores.arrays, strict=True))


def test_one_row_with_two_targets_ends_between_them():
    cores = random_cores(tt_shape(1000, 16, 8), 0)
    index_N = np.array([5, 5])
    rows_ND = drifted(cores, index_N, 0.02, 0)
    errors_N = fold(cores, index_N, rows_ND, 0.1, steps=16)
    np.testing.assert_allclose(errors_N, relative_errors(cores, index_N, rows_ND))
    np.testing.assert_allclose(rows_of(cores, index_N[:1])[0], rows_ND.mean(0), atol=0.01 * np.abs(rows_ND).max())
    assert errors_N.min() > 0.001


def test_rows_of_zeros():
    """A relative error of 0 or of infinity: nothing to divide by, and no warning."""
    cores = random_cores(tt_shape(1000, 16, 8), 0)
    before = cores.arrays
    errors_N = fold(cores, np.array([5, 6]), np.zeros((2, 16)), 0.1)
    assert np.isinf(errors_N).all()
    assert all(np.array_equal(was, now) for was, now in zip(before, cores.arrays, strict=True))


def test_rows_as_they_are_stay_as_they_are():
    cores = random_cores(tt_shape(1000, 16, 8), 0, F32)
    before = cores.arrays
    index_N = np.arange(0, 1000, 7)
    assert (fold(cores, index_N, rows_of(cores, index_N), 0.1) == 0).all()
    assert all(np.array_equal(was, now) for was, now in zip(before, cores.arrays, strict=True))
