"""Places: equal to the numpy specification."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels import places as kernels
from ps.kernels.reference import places as reference

from .strategies import given


@given(st.integers(1, 50), st.integers(0, 70), st.integers(0, 2**32))
def test_split_is_that_of_the_reference(slots, n, seed):
    rng = np.random.default_rng(seed)
    places_S = rng.integers(0, 2**32, slots, dtype=np.uint32)
    slots_N = rng.integers(-1, slots, n)
    found, expected = (np.full((2, n), 7), np.full((2, n), 9))
    assert kernels.split(places_S, slots_N, *found) == reference.split(places_S, slots_N, *expected)
    assert found.tolist() == expected.tolist()
