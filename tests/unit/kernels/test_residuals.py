"""Adding what is held to gradients, and parting what is sent from what stays: equal to the numpy specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels import residuals as kernels
from ps.kernels.reference import residuals as reference

from .strategies import frozen, given, same_bytes

F32 = np.float32
S = 50

sizes = st.tuples(st.integers(0, 40), st.integers(1, 19), st.integers(0, 2**32))
thresholds = st.sampled_from([0.0, 1e-38, 0.5, 1.0, 2.0, np.inf]).map(F32)


def drawn(n, dim, seed):
    """Residuals, slots and gradients: numbers, halves (so that thresholds are met exactly), zeros and the very small."""
    rng = np.random.default_rng(seed)
    scale_N = rng.choice([0, 1, 1e-25, 1e-42], n, p=[0.2, 0.6, 0.1, 0.1]).astype(F32)
    grads_ND = rng.standard_normal((n, dim)).astype(F32)
    grads_ND = np.where(rng.random((n, 1)) < 0.5, grads_ND, np.round(2 * grads_ND) / 2).astype(F32) * scale_N[:, None]
    residuals_SD = np.round(rng.standard_normal((S, dim)) * 2).astype(F32) / F32(2)
    slots_N = np.where(rng.random(n) < 0.5, rng.permutation(S)[:n], -1)
    if n and slots_N[0] >= 0:
        residuals_SD[slots_N[0]] = -grads_ND[0]  # they cancel
    return residuals_SD, slots_N, grads_ND


@given(sizes, thresholds)
def test_survey_is_that_of_the_reference(size, threshold):
    residuals_SD, slots_N, grads_ND = drawn(*size)
    found, expected = ((np.full(size[0], 7, np.int32), np.full(size[0], 7, F32)) for _ in range(2))
    before_SD = residuals_SD.copy()
    kernels.survey(residuals_SD, slots_N, frozen(grads_ND), threshold, *found)
    reference.survey(residuals_SD, slots_N, grads_ND, threshold, *expected)
    assert same_bytes(found[0], expected[0])
    assert same_bytes(found[1], expected[1])
    assert same_bytes(residuals_SD, before_SD)


@given(sizes, thresholds)
def test_take_sent_and_hold_are_those_of_the_reference_and_part_the_total(size, threshold):
    residuals_SD, slots_N, grads_ND = drawn(*size)
    rng = np.random.default_rng(size[2])
    whole_N = rng.random(size[0]) < 0.3
    rows_R = np.flatnonzero(rng.random(size[0]) < 0.7)
    out, expected = (np.full((len(rows_R), size[1]), 7, F32) for _ in range(2))
    kernels.take_sent(residuals_SD, slots_N, frozen(grads_ND), threshold, whole_N, rows_R, out)
    reference.take_sent(residuals_SD, slots_N, grads_ND, threshold, whole_N, rows_R, expected)
    np.testing.assert_array_equal(out, expected)

    total_ND = grads_ND.copy()
    total_ND[slots_N >= 0] += residuals_SD[slots_N[slots_N >= 0]]
    here_H = np.flatnonzero(slots_N >= 0)
    held_SD, expected_SD = residuals_SD.copy(), residuals_SD.copy()
    kernels.hold(held_SD, slots_N[here_H], frozen(grads_ND), threshold, here_H)
    reference.hold(expected_SD, slots_N[here_H], grads_ND, threshold, here_H)
    np.testing.assert_array_equal(held_SD, expected_SD)
    for k, i in enumerate(rows_R):
        if slots_N[i] >= 0 and not whole_N[i]:
            np.testing.assert_array_equal(out[k] + held_SD[slots_N[i]], total_ND[i])


@pytest.mark.parametrize("module", [kernels, reference])
def test_a_row_is_zero_only_where_all_of_it_is(module):
    """Squares of 1e-30 are 0 in float32: such a row would be taken for nothing, and lost."""
    grads_ND = np.array([[0, 1e-30, 0], [0, 0, 0], [-0.0, 0, -0.0], [3, 4, 0]], F32)
    picked_N, norms_N = np.empty(4, np.int32), np.empty(4, F32)
    module.survey(np.zeros((1, 3), F32), np.full(4, -1), grads_ND, F32(np.inf), picked_N, norms_N)
    assert norms_N.tolist() == [module.TINY, 0, 0, 25]
    assert picked_N.tolist() == [0, 0, 0, 0]
