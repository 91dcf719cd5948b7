from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.index import hashing
from ps.kernels.reference.index import hashing as reference

from .strategies import frozen, given, id_arrays, ids_of_hash, same_bytes


@given(id_arrays)
def test_hashes_and_partitions_are_those_of_the_reference(ids_N):
    for name, dtype in (("hash_ids", np.uint64), ("partitions", np.int32)):
        expected_N, out_N, again_N = (np.empty(len(ids_N), dtype) for _ in range(3))
        getattr(reference, name)(ids_N, expected_N)
        getattr(hashing, name)(ids_N, out_N)
        getattr(hashing, name)(frozen(ids_N), again_N)
        assert same_bytes(out_N, expected_N)
        assert same_bytes(again_N, expected_N)


def test_hashes_are_those_of_splitmix64():
    """The first numbers of the generator seeded with 1234567, as published with Vigna's implementation."""
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + k * golden) % 2**64 for k in (1, 2, 3, 4, 5)]
    ids_N = np.array(states, np.uint64).view(np.int64)
    out_N = np.empty(5, np.uint64)
    hashing.hash_ids(ids_N, out_N)
    assert out_N.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@given(id_arrays)
def test_no_two_ids_have_one_hash(ids_N):
    hashes_N = np.empty(len(ids_N), np.uint64)
    hashing.hash_ids(ids_N, hashes_N)
    assert same_bytes(ids_of_hash(hashes_N), ids_N)


def test_partitions_use_all_4096_numbers_evenly():
    out_N = np.empty(409_600, np.int32)
    hashing.partitions(np.arange(409_600), out_N)
    counts = np.bincount(out_N, minlength=4096)
    assert len(counts) == 4096
    assert counts.min() > 50
    assert counts.max() < 160


@given(st.lists(st.integers(0, 9), max_size=100))
def test_groups_are_stable(labels):
    labels_N = np.array(labels, np.int32)
    expected_order_N, expected_starts = reference.group(labels_N, 10)
    order_N, starts = hashing.group(labels_N, 10)
    assert same_bytes(order_N, expected_order_N)
    assert same_bytes(starts, expected_starts)
    assert same_bytes(hashing.group(frozen(labels_N), 10)[0], order_N)
