"""Places: equal to the numpy specification."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.reference.rows import places as reference
from ps.kernels.rows import places as kernels

from .strategies import given


@given(st.integers(1, 50), st.integers(0, 70), st.integers(0, 2**32))
def test_split_is_that_of_the_reference(slots, n, seed):
    rng = np.random.default_rng(seed)
    places_S = rng.integers(0, 2**32, slots, dtype=np.uint32)
    slots_N = rng.integers(-1, slots, n)
    found, expected = (np.full((2, n), 7), np.full((2, n), 9))
    assert kernels.split(places_S, slots_N, *found) == reference.split(places_S, slots_N, *expected)
    assert found.tolist() == expected.tolist()


@given(st.integers(1, 50), st.integers(0, 9), st.integers(0, 9), st.sampled_from([0, kernels.HALF]), st.integers(0, 99))
def test_move_is_that_of_the_reference(slots, first, n, half, seed):
    rng = np.random.default_rng(seed)
    places_S = rng.integers(0, 20, slots, dtype=np.uint32) | rng.choice([np.uint32(0), kernels.HALF], slots)
    moved_P = rng.integers(0, 20, n, dtype=np.uint32)
    found_S, expected_S = places_S.copy(), places_S.copy()
    end = int(rng.integers(0, slots + 1))
    kernels.move(found_S, end, np.uint32(half), first, moved_P)
    reference.move(expected_S, end, np.uint32(half), first, moved_P)
    assert found_S.tolist() == expected_S.tolist()
