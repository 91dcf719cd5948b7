from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example
from hypothesis import strategies as st

from ps.kernels.reference.rows import init as reference
from ps.kernels.rows import init as kernels
from ps.kernels.rows.init import CONSTANT, NORMAL, UNIFORM

from .strategies import frozen, given, id_arrays, ids_of_hash, same_bytes, seeds

F32 = np.float32
small = st.floats(-100, 100, width=32).map(F32)


def rows(function, ids_N, seed, kind, a, b, dim):
    out_ND = np.full((len(ids_N), dim), np.nan, F32)
    function(ids_N, seed, kind, F32(a), F32(b), out_ND)
    return out_ND


@given(id_arrays, seeds, st.sampled_from([CONSTANT, UNIFORM]), small, small, st.integers(1, 20))
def test_constant_and_uniform_rows_are_those_of_the_reference_to_the_bit(ids_N, seed, kind, a, b, dim):
    a, b = min(a, b), max(a, b)
    expected_ND = rows(reference.init_rows, ids_N, seed, kind, a, b, dim)
    assert same_bytes(rows(kernels.init_rows, ids_N, seed, kind, a, b, dim), expected_ND)
    assert same_bytes(rows(kernels.init_rows, frozen(ids_N), seed, kind, a, b, dim), expected_ND)


@given(id_arrays, seeds, st.integers(1, 20))
def test_standard_normal_rows_are_within_one_ulp(ids_N, seed, dim):
    got_ND = rows(kernels.init_rows, ids_N, seed, NORMAL, 0, 1, dim)
    expected_ND = rows(reference.init_rows, ids_N, seed, NORMAL, 0, 1, dim)
    np.testing.assert_array_max_ulp(got_ND, expected_ND, maxulp=1)


@given(id_arrays, seeds, small, st.floats(0, 100, width=32).map(F32))
def test_mean_and_standard_deviation_are_applied_to_the_standard_normal(ids_N, seed, a, b):
    standard_ND = rows(kernels.init_rows, ids_N, seed, NORMAL, 0, 1, 7)
    assert same_bytes(rows(kernels.init_rows, ids_N, seed, NORMAL, a, b, 7), a + b * standard_ND)


@pytest.mark.parametrize("kind", [UNIFORM, NORMAL])
def test_an_element_depends_on_nothing_but_seed_id_and_position(kind):
    ids_N = np.arange(-5, 5)
    whole_ND = rows(kernels.init_rows, ids_N, np.uint64(7), kind, 0, 1, 9)
    for dim in range(1, 9):
        part_ND = rows(kernels.init_rows, ids_N[::-1].copy(), np.uint64(7), kind, 0, 1, dim)
        assert same_bytes(part_ND, whole_ND[::-1, :dim].copy())
    assert not (rows(kernels.init_rows, ids_N, np.uint64(8), kind, 0, 1, 9) == whole_ND).any()


def id_of_largest_uniforms(seed):
    """The id whose first two uniforms are 1 - 2**-24: the stream's first number, taken back step by step."""
    all_ones = np.array([2**64 - 1], np.uint64)
    key = ids_of_hash(all_ones).view(np.uint64) - np.uint64(0x9E3779B97F4A7C15)
    return ids_of_hash(ids_of_hash(key).view(np.uint64) ^ seed)


@given(small, small, seeds)
@example(F32(0), F32(1), np.uint64(0))
@example(F32(1), F32(2), np.uint64(0))  # 1 + (1 - 2**-24) lies half-way; the even neighbour is 2
def test_uniform_values_stay_below_the_upper_end(a, b, seed):
    a, b = min(a, b), max(a, b)
    ids_N = np.concatenate([id_of_largest_uniforms(seed), np.arange(20)])
    values_ND = rows(kernels.init_rows, ids_N, seed, UNIFORM, a, b, 4)
    assert (values_ND >= a).all()
    assert (values_ND < b).all() or a == b
    assert a != 0 or b != 1 or (values_ND[0, :2] == 1 - 2**-24).all()


def test_uniform_and_normal_have_their_moments():
    ids_N = np.arange(100_000)
    uniform_ND = rows(kernels.init_rows, ids_N, np.uint64(3), UNIFORM, -1, 3, 4).astype(np.float64)
    assert uniform_ND.mean() == pytest.approx(1, abs=0.01)
    assert uniform_ND.var() == pytest.approx(16 / 12, abs=0.01)
    normal_ND = rows(kernels.init_rows, ids_N, np.uint64(3), NORMAL, 2, 0.5, 4).astype(np.float64)
    assert normal_ND.mean() == pytest.approx(2, abs=0.01)
    assert normal_ND.std() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.corrcoef(normal_ND.T) - np.eye(4)).max() < 0.02
