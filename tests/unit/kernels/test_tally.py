from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.index import tally as kernels
from ps.kernels.reference.index import tally as reference

from .strategies import given, ids_of_hash

moves = st.lists(
    st.tuples(st.booleans(), st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), max_size=8), st.integers(1, 3)),
    max_size=30,
)


@given(moves, st.integers(0, 40))
def test_counts_are_those_of_the_reference(made, apart):
    """Of 16 ids at most, in 32 places; with some bits of their hashes alone telling them apart they lie in one run."""
    all_ids_N = ids_of_hash(np.arange(16, dtype=np.uint64) << np.uint64(apart))
    counted, expected = np.zeros((32, 2), np.int64), {}
    for adds, entries, most in made:
        ids_N = all_ids_N[[place for place, _ in entries]]
        if adds:
            counts_N = np.array([count for _, count in entries], np.int64)
            new = kernels.add(counted, np.uint64(0), ids_N, counts_N)
            assert new == reference.add(expected, ids_N, counts_N)
        else:
            taken_N, expected_N = np.empty(len(ids_N), np.int64), np.empty(len(ids_N), np.int64)
            gone = kernels.take(counted, np.uint64(0), ids_N, most, taken_N)
            assert gone == reference.take(expected, ids_N, most, expected_N)
            assert taken_N.tolist() == expected_N.tolist()
        used = counted[counted[:, 1] > 0]
        assert dict(used.tolist()) == expected
        assert len(used) == len(expected), "no id lies in two places"
