from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.kernels.packing import packing as kernels
from ps.kernels.reference.packing import packing as reference

from .strategies import frozen, given, same_bytes

F32 = np.float32
BIG = np.finfo(F32).max

any_values = arrays.arrays(F32, st.integers(0, 300), elements=st.sampled_from([0.0, -0.0, 1.5]) | st.floats(width=32))
small_values = arrays.arrays(
    F32,
    st.integers(0, 300),
    elements=st.sampled_from([0.0, 2.0**-149, 2.0**-126]) | st.floats(-(2.0**126), 2.0**126, width=32),
)
bits = arrays.arrays(np.bool_, st.integers(0, 400))


def words_of(flags_N):
    padded = np.zeros(-(-len(flags_N) // 64) * 64, np.bool_)
    padded[: len(flags_N)] = flags_N
    return np.packbits(padded, bitorder="little").view(np.uint64)


def both(name, outs, *arguments):
    """The kernel's results, which are those of the reference."""
    results = []
    for module in (reference, kernels):
        copies = [out.copy() for out in outs]
        with np.errstate(over="ignore", invalid="ignore"):
            results.append((getattr(module, name)(*arguments, *copies), copies))
    (expected, expected_outs), (result, got) = results
    assert result == expected
    assert all(same_bytes(left, right) for left, right in zip(got, expected_outs, strict=True))
    return result, got


@given(bits)
def test_bits_are_set_and_found(flags_N):
    rows_R = np.flatnonzero(flags_N)
    empty = np.zeros(-(-len(flags_N) // 64), np.uint64)
    sound, (words,) = both("set_bits", [empty], frozen(rows_R), len(flags_N))
    assert sound
    assert same_bytes(words, words_of(flags_N))
    _, (found_R,) = both("find_bits", [np.zeros_like(rows_R)], words)
    assert same_bytes(found_R, rows_R)


@given(any_values, st.sampled_from([0.0, 2.0**-149, 1.5, 1e30]) | st.floats(0, 3, width=32))
def test_values_below_the_mask_are_zero(values_N, least):
    _, (out_N,) = both("mask", [np.empty_like(values_N)], frozen(values_N), F32(least))
    kept_N = ~(np.abs(values_N) < F32(least))
    assert same_bytes(out_N[kept_N], values_N[kept_N])
    assert not out_N[~kept_N].view(np.int32).any()


@pytest.mark.parametrize("rows", [[-1], [3], [0, 0], [1, 0], [0, 1, 2, 3], [-(2**63)], [2**63 - 1]])
def test_rows_that_do_not_ascend_within_the_step_set_nothing_out_of_bounds(rows):
    words = np.zeros(3, np.uint64)
    assert not kernels.set_bits(np.array(rows), 3, words[1:2])
    assert words[0] == words[2] == 0
    assert not reference.set_bits(np.array(rows), 3, words[1:2].copy())


@given(any_values)
def test_packing_keeps_what_is_not_zero(values_N):
    count, _ = both("count_nonzero", [], values_N)
    words = np.full(-(-len(values_N) // 64), 7, np.uint64)
    packed, (words, packed_N) = both("pack", [words, np.zeros(len(values_N), F32)], values_N)
    assert packed == count
    _, (back_N,) = both("unpack", [np.zeros(len(values_N), F32)], words, packed_N[:count])
    assert same_bytes(back_N[values_N != 0], values_N[values_N != 0])
    assert not back_N[values_N == 0].any()


@given(any_values, st.sampled_from([1.0, 65520.0, 2.0**127, np.inf]))
def test_a_limit_is_found_out(values_N, limit):
    both("all_below", [], values_N, F32(limit))


@pytest.mark.parametrize("kernel", ["count_nonzero", "all_below"])
def test_the_last_of_many_is_looked_at(kernel):
    values_N = np.zeros(20_001, F32)
    values_N[-1] = np.nan
    both(kernel, [], values_N, *([F32(1)] if kernel == "all_below" else []))


@given(st.integers(1, 200), st.integers(0, 30), st.integers(0, 2**32))
def test_ends_of_rows_are_counts_of_bits(dim, rows, seed):
    flags_N = np.random.default_rng(seed).random(rows * dim) < 0.3
    both("ends_of_rows", [np.zeros(rows, np.int64)], words_of(flags_N), dim)


@given(small_values, st.lists(st.integers(0, 300), max_size=6))
def test_int8_is_off_by_half_a_scale_at_most(values_V, cuts):
    ends_R = np.array(sorted({min(cut, len(values_V)) for cut in cuts} | {len(values_V)}))
    _, (scales_R, items_V) = both(
        "quantize", [np.zeros(len(ends_R), F32), np.zeros(len(values_V), np.int8)], values_V, ends_R
    )
    wrong, (back_V,) = both("dequantize", [np.zeros(len(values_V), F32)], items_V, ends_R, scales_R)
    assert wrong == -1
    start = 0
    for end, scale in zip(ends_R, scales_R, strict=True):
        row, back = values_V[start:end].astype(float), back_V[start:end].astype(float)
        largest = np.abs(row).max(initial=0)
        assert scale == max(F32(largest) / F32(127), F32(2.0**-126))
        assert np.abs(row - back).max(initial=0) <= float(scale) * (0.5 + 2.0**-16)
        start = end


@pytest.mark.parametrize(
    ("scale", "item", "sound"),
    [
        *[(1, 127, True), (1, -127, True), (1, -128, False), (0, 1, False), (-1, 1, False), (np.nan, 1, False)],
        *[(np.inf, 1, False), (2.0**-127, 1, False), (2.0**-126, 1, True), (2.0**121, 1, False), (2.0**120, 1, True)],
    ],
)
def test_what_quantize_never_makes_is_found_out(scale, item, sound):
    scales_R, items_V, ends_R = np.array([1, scale, -1], F32), np.array([5, item, 5], np.int8), np.arange(1, 4)
    wrong, _ = both("dequantize", [np.zeros(3, F32)], items_V, ends_R, scales_R)
    assert wrong == (2 if sound else 1)
