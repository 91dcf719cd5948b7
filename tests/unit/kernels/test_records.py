from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ps.kernels.index.hashing import partitions
from ps.kernels.reference.rows import records as reference
from ps.kernels.rows import records as kernels

from .strategies import frozen, given, id_arrays, same_bytes

F32 = np.float32
cases = given(id_arrays, st.integers(0, 40), st.integers(0, 2**32))


def batch(ids_N, width, seed):
    """Scores with any bits (NaN and -0 too), stamps, rows."""
    rng = np.random.default_rng(seed)
    n = len(ids_N)
    scores_N = rng.integers(0, 2**32, n, dtype=np.uint32).view(F32)
    return scores_N, rng.integers(0, 2**32, n, dtype=np.uint32), rng.integers(0, 256, (n, width), dtype=np.uint8)


def encoded(ids_N, width, seed):
    values_NV = np.empty((len(ids_N), kernels.HEADER_BYTES + width), np.uint8)
    kernels.encode_values(ids_N, *batch(ids_N, width, seed), values_NV)
    return values_NV


def decoded(decode, ids_N, values_NV):
    n, width = len(ids_N), values_NV.shape[1] - kernels.HEADER_BYTES
    parts = np.empty(n, F32), np.empty(n, np.uint32), np.empty((n, width), np.uint8), np.empty(n, bool)
    return *parts, decode(ids_N, values_NV, *parts)


@given(id_arrays)
def test_keys_are_those_of_the_reference_and_give_the_ids_back(ids_N):
    expected_NK, keys_NK, again_NK = (np.empty((len(ids_N), kernels.KEY_BYTES), np.uint8) for _ in range(3))
    reference.encode_keys(ids_N, expected_NK)
    kernels.encode_keys(ids_N, keys_NK)
    kernels.encode_keys(frozen(ids_N), again_NK)
    assert same_bytes(keys_NK, expected_NK)
    assert same_bytes(again_NK, expected_NK)
    for decode in (kernels.decode_keys, reference.decode_keys):
        for given_NK in (keys_NK, frozen(keys_NK)):
            back_N = np.empty_like(ids_N)
            decode(given_NK, back_N)
            assert same_bytes(back_N, ids_N)


@given(id_arrays)
def test_keys_sort_by_partition_and_then_by_id(ids_N):
    keys_NK = np.empty((len(ids_N), kernels.KEY_BYTES), np.uint8)
    kernels.encode_keys(ids_N, keys_NK)
    partitions_N = np.empty(len(ids_N), np.int32)
    partitions(ids_N, partitions_N)
    pairs = sorted(zip(partitions_N.tolist(), ids_N.tolist(), strict=True))
    assert [int.from_bytes(key[2:]) - 2**63 for key in sorted(map(bytes, keys_NK))] == [id_ for _, id_ in pairs]


@cases
def test_values_are_those_of_the_reference(ids_N, width, seed):
    parts = batch(ids_N, width, seed)
    expected_NV = np.empty((len(ids_N), kernels.HEADER_BYTES + width), np.uint8)
    reference.encode_values(ids_N, *parts, expected_NV)
    for given_parts in (parts, tuple(map(frozen, parts))):
        values_NV = np.zeros_like(expected_NV)
        kernels.encode_values(ids_N, *given_parts, values_NV)
        assert same_bytes(values_NV, expected_NV)


@cases
def test_decoding_gives_back_what_was_encoded(ids_N, width, seed):
    values_NV = encoded(ids_N, width, seed)
    for decode in (kernels.decode_values, reference.decode_values):
        for given_NV in (values_NV, frozen(values_NV)):
            *parts, sound_N, unsound = decoded(decode, ids_N, given_NV)
            assert all(map(same_bytes, parts, batch(ids_N, width, seed)))
            assert sound_N.all()
            assert unsound == 0


@cases
def test_kernel_and_reference_find_the_same_values_unsound(ids_N, width, seed):
    values_NV = encoded(ids_N, width, seed)
    rng = np.random.default_rng(seed)
    spoiled_N = rng.random(len(ids_N)) < 0.5
    places_N = rng.integers(0, values_NV.shape[1], len(ids_N))
    values_NV[spoiled_N, places_N[spoiled_N]] ^= np.uint8(1 << int(rng.integers(0, 8)))
    for decode in (kernels.decode_values, reference.decode_values):
        *_, sound_N, unsound = decoded(decode, ids_N, values_NV)
        assert same_bytes(sound_N, ~spoiled_N)
        assert unsound == spoiled_N.sum()


@given(st.integers(0, 40), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32))
def test_every_single_bit_counts(width, id_, seed):
    """All bits of a value and of its id, one at a time, for every length of the last word."""
    one = np.array([id_], np.int64)
    value_NV = encoded(one, width, seed)
    bits = value_NV.size * 8
    flipped_NV = np.repeat(value_NV, bits, axis=0)
    flipped_NV[np.arange(bits), np.arange(bits) // 8] ^= (1 << (np.arange(bits) % 8)).astype(np.uint8)
    *_, unsound = decoded(kernels.decode_values, np.repeat(one, bits), flipped_NV)
    assert unsound == bits
    other_ids_N = (one.view(np.uint64) ^ (np.uint64(1) << np.arange(64, dtype=np.uint64))).view(np.int64)
    *_, unsound = decoded(kernels.decode_values, other_ids_N, np.repeat(value_NV, 64, axis=0))
    assert unsound == 64


@given(st.integers(16, 80), st.integers(0, 2**32), st.data())
def test_words_that_change_places_are_noticed(width, seed, data):
    value_NV = encoded(np.array([7]), width, seed)
    words = [kernels.HEADER_BYTES + 8 * k for k in range(width // 8)]
    a, b = data.draw(st.permutations(words))[:2]
    swapped_NV = value_NV.copy()
    swapped_NV[0, a : a + 8], swapped_NV[0, b : b + 8] = value_NV[0, b : b + 8], value_NV[0, a : a + 8]
    *_, sound_N, _ = decoded(kernels.decode_values, np.array([7]), swapped_NV)
    assert sound_N[0] == same_bytes(swapped_NV, value_NV)
