"""Adding what is held to gradients, and parting what is sent from what stays: equal to the numpy specification."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.reference.updates import residuals as reference
from ps.kernels.updates import residuals as kernels

from .strategies import frozen, given, same_bytes

F32 = np.float32
S = 50

sizes = st.tuples(st.integers(0, 40), st.integers(1, 19), st.integers(0, 2**32))
thresholds = st.sampled_from([0.0, 1e-38, 0.5, 1.0, 2.0, np.inf]).map(F32)


def drawn(n, dim, seed):
    """Residuals, slots and gradients: numbers, halves (thresholds are met exactly), zeros, the very small."""
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
def test_accumulate_is_that_of_the_reference(size, threshold):
    residuals_SD, slots_N, grads_ND = drawn(*size)
    waits_N = np.random.default_rng(size[2]).random(size[0]) < 0.3
    made = []
    for module, grads in ((kernels, frozen(grads_ND)), (reference, grads_ND)):
        arrays = residuals_SD.copy(), np.full(S, 7, F32), np.full(size[0], 7, np.int32), np.full(size[0], 7, F32)
        module.accumulate(arrays[0], arrays[1], slots_N, grads, threshold, waits_N, *arrays[2:])
        made.append(arrays)
        assert not arrays[2][waits_N].any()
    for found, expected in zip(*made, strict=True):
        assert same_bytes(found, expected)


@given(sizes, thresholds)
def test_send_is_that_of_the_reference_and_parts_the_total(size, threshold):
    residuals_SD, slots_N, grads_ND = drawn(*size)
    rng = np.random.default_rng(size[2])
    rows_R = np.flatnonzero(rng.random(size[0]) < 0.7)
    whole_R = rng.random(len(rows_R)) < 0.3
    made = []
    for module, grads in ((kernels, frozen(grads_ND)), (reference, grads_ND)):
        left_SD, out_RD = residuals_SD.copy(), np.full((len(rows_R), size[1]), 7, F32)
        module.send(left_SD, slots_N[rows_R], grads, rows_R, whole_R, threshold, out_RD)
        made.append((left_SD, out_RD))
    for found, expected in zip(*made, strict=True):
        assert same_bytes(found, expected)
    left_SD, out_RD = made[0]
    here_R = slots_N[rows_R] >= 0
    slots_H = slots_N[rows_R][here_R]
    np.testing.assert_array_equal(out_RD[here_R] + left_SD[slots_H], residuals_SD[slots_H])


@given(sizes, thresholds)
def test_hold_is_that_of_the_reference(size, threshold):
    residuals_SD, slots_N, grads_ND = drawn(*size)
    rows_H = np.flatnonzero(slots_N >= 0)
    waits_H = np.random.default_rng(size[2]).random(len(rows_H)) < 0.3
    expected_SD = residuals_SD.copy()
    kernels.hold(residuals_SD, slots_N[rows_H], frozen(grads_ND), rows_H, threshold, waits_H)
    reference.hold(expected_SD, slots_N[rows_H], grads_ND, rows_H, threshold, waits_H)
    assert same_bytes(residuals_SD, expected_SD)
    assert same_bytes(residuals_SD[slots_N[rows_H[waits_H]]], grads_ND[rows_H[waits_H]])


@pytest.mark.parametrize("module", [kernels, reference])
def test_a_row_is_zero_only_where_all_of_it_is(module):
    """Squares of 1e-30 are 0 in float32: such a row would be taken for nothing, and lost."""
    grads_ND = np.array([[0, 1e-30, 0], [0, 0, 0], [-0.0, 0, -0.0], [3, 4, 0]], F32)
    picked_N, norms_N = np.empty(4, np.int32), np.empty(4, F32)
    arena = np.zeros((1, 3), F32), np.zeros(1, F32)
    module.accumulate(*arena, np.full(4, -1), grads_ND, F32(np.inf), np.zeros(4, np.bool_), picked_N, norms_N)
    assert norms_N.tolist() == [module.TINY, 0, 0, 25]
    assert picked_N.tolist() == [0, 0, 0, 0]
