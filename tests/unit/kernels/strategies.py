"""What the tests of the kernels draw: ids, read-only copies, ids of a chosen hash."""

from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import strategies as st

INT64 = np.iinfo(np.int64)
EDGE_IDS = [0, 1, -1, INT64.min, INT64.min + 1, INT64.max, 2**32, -(2**32), 2**53 + 1]

id_values = st.sampled_from(EDGE_IDS) | st.integers(-4, 4) | st.integers(INT64.min, INT64.max)
id_arrays = st.lists(id_values, max_size=200).map(lambda ids: np.array(ids, np.int64))
seeds = st.integers(0, 2**64 - 1).map(np.uint64)


def given(*strategies):
    """hypothesis.given without a deadline: the first example of all may have to compile the kernel."""
    return lambda test: hypothesis.settings(deadline=None)(hypothesis.given(*strategies)(test))


def frozen(array):
    """The same values read-only, as they come from the wire: another type to numba."""
    copy = np.ascontiguousarray(array).copy()
    copy.setflags(write=False)
    return copy


def same_bytes(left, right):
    """Equal to the bit: NaN equals NaN, and 0 is not -0."""
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


def ids_of_hash(hashes_N):
    """The ids that have these hashes: mix64 undone. An odd factor has an inverse modulo 2**64."""
    x = hashes_N.astype(np.uint64)
    x = x ^ (x >> np.uint64(31)) ^ (x >> np.uint64(62))
    x = x * np.uint64(pow(0x94D049BB133111EB, -1, 2**64))
    x = x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))
    x = x * np.uint64(pow(0xBF58476D1CE4E5B9, -1, 2**64))
    x = x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60))
    return x.view(np.int64)
