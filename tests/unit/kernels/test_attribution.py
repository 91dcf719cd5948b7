"""|gradient x value|: equal to the numpy specification."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.reference.rows import attribution as reference
from ps.kernels.rows import attribution as kernels

from .strategies import frozen, given, same_bytes

F32 = np.float32


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 2**32))
def test_attribute_is_that_of_the_reference(n, dim, seed):
    rng = np.random.default_rng(seed)
    rows_SW = rng.standard_normal((50, dim + 2)).astype(F32)
    slots_N, grads_ND = rng.permutation(50)[:n], rng.standard_normal((n, dim)).astype(F32)
    found_N, expected_N = (np.full(n, -7, F32) for _ in range(2))
    kernels.attribute(rows_SW, slots_N, frozen(grads_ND), found_N)
    reference.attribute(rows_SW, slots_N, grads_ND, expected_N)
    assert same_bytes(found_N, expected_N)
