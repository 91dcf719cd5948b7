"""The running mean of |gradient| / |value|: equal to the numpy specification, and to a mean where it is one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.reference.updates import convergence as reference
from ps.kernels.updates import convergence as kernels
from ps.kernels.updates.convergence import STATISTIC

from .strategies import frozen, given, same_bytes

F32 = np.float32
S = 50


@given(st.integers(0, 40), st.integers(1, 19), st.integers(1, 5), st.integers(0, 2**32))
def test_observe_is_that_of_the_reference(n, dim, window, seed):
    rng = np.random.default_rng(seed)
    scale_N = rng.choice([0, 1, 1e-25, 1e-42, 1e15], n).astype(F32)
    grads_ND = rng.standard_normal((n, dim)).astype(F32) * scale_N[:, None]
    values_ND = rng.standard_normal((n, dim)).astype(F32) * rng.permutation(scale_N)[:, None]
    rows_N = np.flatnonzero(rng.random(n) < 0.7)
    slots_N = rng.permutation(S)[: len(rows_N)]
    start_S = np.zeros(S, STATISTIC)
    start_S["mean"], start_S["seen"] = rng.random(S), rng.integers(0, window + 1, S)
    made = []
    for module, wire in ((kernels, frozen), (reference, np.copy)):
        statistics_S = start_S.copy()
        module.observe(statistics_S, slots_N, rows_N, wire(grads_ND), wire(values_ND), window, 9)
        made.append(statistics_S)
    assert same_bytes(*(each.view(np.uint8) for each in made))
    assert (made[0]["mean"] >= 0).all()
    assert (made[0]["mean"] <= 1).all()


@pytest.mark.parametrize("module", [kernels, reference])
def test_it_is_the_mean_of_the_first_and_then_an_exponential_one(module):
    statistics_S, slots_N = np.zeros(2, STATISTIC), np.array([1])
    found = []
    for step, size in enumerate([1, 2, 3, 6, 1000], 1):
        grads_ND = np.array([[7, 7], [0.1 * size, 0]], F32)
        module.observe(statistics_S, slots_N, slots_N, grads_ND, np.array([[0, 0], [0, -1]], F32), 3, step)
        found.append(float(statistics_S["mean"][1]))
    assert found == pytest.approx([0.1, 0.15, 0.2, 0.2 + 0.4 / 3, (2 / 3) * (0.2 + 0.4 / 3) + 1 / 3])
    assert statistics_S[1].tolist() == (0, pytest.approx(found[-1]), 3, 5, 0)
    assert statistics_S[0].tolist() == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(("grad", "value"), [(0, 0), (1, 0), (1, 1), (2, 1), (1, np.nan)])
def test_a_row_without_a_value_or_with_a_gradient_as_large_has_not_converged(module, grad, value):
    statistics_S, first_N = np.zeros(1, STATISTIC), np.array([0])
    module.observe(statistics_S, first_N, first_N, np.full((1, 2), grad, F32), np.full((1, 2), value, F32), 4, 1)
    assert statistics_S["mean"].tolist() == [1]
