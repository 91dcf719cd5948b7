from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.index import bloom as kernels
from ps.kernels.reference.index import bloom as reference

from .strategies import frozen, given, id_arrays, ids_of_hash, same_bytes


@given(id_arrays, id_arrays, st.integers(1, 9), st.integers(0, 2**32))
def test_blocks_are_those_of_the_reference(ids_N, asked_N, blocks, seed):
    words_W, expected_W = (np.zeros(blocks * kernels.BLOCK_WORDS, np.uint64) for _ in range(2))
    kernels.add(words_W, ids_N)
    kernels.add(words_W, frozen(ids_N[:3]))
    reference.add(expected_W, ids_N)
    assert same_bytes(words_W, expected_W)
    claimed_N = np.random.default_rng(seed).random(len(asked_N)) < 0.3
    found_N, again_N, expected_N = claimed_N.copy(), claimed_N.copy(), claimed_N.copy()
    kernels.may_contain(words_W, asked_N, found_N)
    kernels.may_contain(words_W, frozen(asked_N), again_N)
    reference.may_contain(words_W, asked_N, expected_N)
    assert same_bytes(found_N, expected_N)
    assert same_bytes(again_N, expected_N)
    assert found_N[np.isin(asked_N, ids_N)].all()


def test_half_a_percent_of_absent_ids_are_found_at_12_bits_an_id_in_a_shard_too():
    """A shard owns few partitions: the top 12 bits of its ids' hashes are nearly all the same."""
    rng = np.random.default_rng(3)
    hashes_N = rng.integers(0, 2**52, 400_000).astype(np.uint64)
    for ids_N in (rng.integers(-(2**63), 2**63 - 1, 400_000), ids_of_hash(hashes_N), np.arange(400_000)):
        words_W = np.zeros(200_000 * 12 // 512 * 8, np.uint64)
        kernels.add(words_W, ids_N[:200_000])
        found_N = np.zeros(400_000, bool)
        kernels.may_contain(words_W, ids_N, found_N)
        assert found_N[:200_000].all()
        assert 0.002 < found_N[200_000:].mean() < 0.008
