from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.index import unique as kernels
from ps.kernels.reference.index import unique as reference

from .strategies import frozen, given, id_arrays, ids_of_hash, same_bytes


@given(id_arrays)
def test_unique_is_that_of_the_reference(ids_N):
    expected = reference.unique(ids_N)
    for given_N in (ids_N, frozen(ids_N)):
        for got, wanted in zip(kernels.unique(given_N), expected, strict=True):
            assert same_bytes(got, wanted)
        assert kernels.has_duplicates(given_N) == reference.has_duplicates(ids_N)


def test_unique_of_many_ids_in_one_bucket():
    """Hashes that agree in their low 20 bits make one long probe, not a wrong answer."""
    ids_N = ids_of_hash(np.arange(1000, dtype=np.uint64) << np.uint64(20))
    unique_U, inverse_N, counts_U = kernels.unique(np.concatenate([ids_N, ids_N[::-1]]))
    assert same_bytes(unique_U, ids_N)
    assert inverse_N.tolist() == [*range(1000), *reversed(range(1000))]
    assert set(counts_U.tolist()) == {2}
    assert not kernels.has_duplicates(ids_N)


@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 40), st.integers(0, 2**32))
def test_sums_are_added_in_the_order_of_the_batch(n, u, dim, seed):
    """To the bit: magnitudes differ so much that another order would give another sum."""
    rng = np.random.default_rng(seed)
    grads_ND = (rng.standard_normal((n, dim)) * 10.0 ** rng.integers(-6, 6, (n, 1))).astype(np.float32)
    inverse_N = rng.integers(0, u, n)
    expected_UD, out_UD, again_UD = (np.full((u, dim), np.nan, np.float32) for _ in range(3))
    reference.segment_sum(grads_ND, inverse_N, expected_UD)
    kernels.segment_sum(grads_ND, inverse_N, out_UD)
    kernels.segment_sum(frozen(grads_ND), frozen(inverse_N), again_UD)
    assert same_bytes(out_UD, expected_UD)
    assert same_bytes(again_UD, expected_UD)


def test_ids_that_are_chosen_to_collide_are_no_slower():
    """Quadratic, this would take an hour."""
    ids_N = np.random.default_rng(0).permutation(ids_of_hash(np.arange(1_000_000, dtype=np.uint64) << np.uint64(32)))
    assert not kernels.has_duplicates(ids_N)
    assert len(kernels.unique(ids_N)[0]) == 1_000_000
    assert kernels.has_duplicates(np.append(ids_N, ids_N[0]))


def test_ascending_ids_need_no_table():
    ids_N = np.arange(-5, 100_000)
    assert not kernels.has_duplicates(ids_N)
    assert kernels.has_duplicates(np.append(ids_N, ids_N[-1]))
    assert kernels.has_duplicates(np.append(ids_N, ids_N[0]))
