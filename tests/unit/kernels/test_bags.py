from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.reference.rows import bags as reference
from ps.kernels.rows import bags as kernels

from .strategies import frozen, given, same_bytes

DIM = 3


@st.composite
def structures(draw):
    """(how many rows, starts, positions); some bags are empty, some rows are in none, some twice in one."""
    rows = draw(st.integers(1, 30))
    lengths = draw(st.lists(st.integers(0, 9), max_size=20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    starts_K = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return rows, starts_K, rng.integers(0, rows, starts_K[-1]).astype(np.int32), rng


@given(structures())
def test_sums_are_in_the_order_of_the_bag(structure):
    rows, starts_K, positions_P, rng = structure
    rows_UD = rng.standard_normal((rows, DIM), np.float32) * np.float32(10) ** rng.integers(-9, 9, (rows, 1))
    rows_UD = rows_UD.astype(np.float32)
    expected, found = (np.full((len(starts_K) - 1, DIM), np.nan, np.float32) for _ in range(2))
    reference.pool(rows_UD, starts_K, positions_P, expected)
    kernels.pool(rows_UD, starts_K, positions_P, found)
    assert same_bytes(expected, found)
    half = len(starts_K) // 2
    kernels.pool(rows_UD, starts_K[half:], positions_P, found[half:])
    assert same_bytes(expected, found)


@given(structures(), st.booleans())
def test_gradients_of_some_bags_are_spread_to_their_rows(structure, read_only):
    rows, starts_K, positions_P, rng = structure
    bags_R = np.flatnonzero(rng.random(len(starts_K) - 1) < 0.6)
    grads_RD = rng.standard_normal((len(bags_R), DIM), np.float32)
    results = []
    for module in (reference, kernels):
        out_UD, used_U = np.zeros((rows, DIM), np.float32), np.zeros(rows, np.bool_)
        grads = frozen(grads_RD) if read_only else grads_RD
        module.spread(grads, starts_K, positions_P, bags_R, out_UD, used_U)
        results.append((out_UD, used_U))
    assert all(same_bytes(one, other) for one, other in zip(*results, strict=True))
    taken = [positions_P[starts_K[bag] : starts_K[bag + 1]] for bag in bags_R]
    assert set(np.flatnonzero(results[1][1])) == set(np.concatenate([[], *taken]))


@given(st.integers(0, 2**32))
def test_parts_are_added_where_their_bags_are(seed):
    rng = np.random.default_rng(seed)
    bags_R = np.flatnonzero(rng.random(20) < 0.5)
    part_RD, start_BD = rng.standard_normal((len(bags_R), DIM), np.float32), rng.standard_normal((20, DIM), np.float32)
    expected, found = start_BD.copy(), start_BD.copy()
    reference.add_at(part_RD, bags_R, expected)
    kernels.add_at(part_RD, bags_R, found)
    assert same_bytes(expected, found)


@pytest.mark.parametrize("kind", [np.int64, np.int32])
@given(st.integers(1, 32), st.integers(0, 90), st.integers(0, 2**32))
def test_numbers_of_any_width_come_back(kind, width, count, seed):
    width = min(width, 31) if kind is np.int32 else width
    numbers_N = np.random.default_rng(seed).integers(0, 2**width, count)
    words = [np.zeros(-(-count * width // 64) + 1, np.uint64) for _ in range(2)]
    kernels.put_numbers(numbers_N, width, words[0])
    reference.put_numbers(numbers_N, width, words[1])
    assert same_bytes(*words)
    for module in (kernels, reference):
        out_N = np.empty(count, kind)
        assert module.get_numbers(words[0], width, out_N) == max(numbers_N, default=-1)
        np.testing.assert_array_equal(out_N, numbers_N)
