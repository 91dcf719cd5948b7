from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.reference.rows import half as reference
from ps.kernels.rows import half as kernels

from .strategies import frozen, given, ids_of_hash, same_bytes, seeds

F32 = np.float32
ALL_ITEMS = np.arange(65536, dtype=np.uint16)
NAN16 = (ALL_ITEMS & 0x7FFF) > 0x7C00
NAN_BRAIN = (ALL_ITEMS & 0x7FFF) > 0x7F80

patterns = st.integers(0, 2**32 - 1)
"""Any float32 at all, NaN and infinity too."""
near_halves = st.builds(
    lambda item, ulps: int(np.array([item], np.uint16).view(np.float16).astype(F32).view(np.uint32)[0]) + ulps,
    st.integers(0, 65535),
    st.integers(-2, 2) | st.sampled_from([0x1000, 0xFFF, 0x1001]),
).map(lambda bits: bits % 2**32)
"""At and about what binary16 has, and the ties between."""
near_brains = st.builds(
    lambda item, low: (item << 16) | low, st.integers(0, 65535), st.sampled_from([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
)
exponents = st.builds(lambda e, m: (e << 23) | m, st.integers(90, 150), st.integers(0, 2**23 - 1))
values = st.lists(patterns | near_halves | near_brains | exponents, max_size=300)


def as_rows(bits, width):
    flat = np.array(bits, np.uint32).view(F32)
    return np.resize(flat, (len(flat) // width + 1, width)) if len(flat) else np.zeros((1, width), F32)


def places(rng, n):
    """n distinct slots of n + 3, some of the rows without one."""
    return np.where(rng.random(n) < 0.2, -1, rng.permutation(n + 3)[:n])


parts = st.tuples(st.integers(1, 40), st.integers(0, 40), st.integers(0, 2))


@given(values, parts, st.integers(0, 2**32), seeds, seeds)
def test_every_kernel_is_that_of_the_reference(bits, lengths, seed, row_seed, push):
    half, brain, full = lengths
    rng = np.random.default_rng(seed)
    rows_NW = as_rows(bits, half + brain + full)
    n, slots_N = len(rows_NW), places(rng, len(rows_NW))
    ids_N = rng.integers(-(2**63), 2**63 - 1, n)
    empty_SW = rng.integers(0, 65536, (n + 3, half + brain + 2 * full)).astype(np.uint16)
    for name, more in (("narrow", ()), ("narrow_stochastic", (row_seed, push, ids_N))):
        expected_SW, out_SW = empty_SW.copy(), empty_SW.copy()
        with np.errstate(all="ignore"):
            getattr(reference, name)(rows_NW, slots_N, expected_SW, half, brain, *more)
        getattr(kernels, name)(rows_NW, slots_N, out_SW, half, brain, *more)
        assert same_bytes(out_SW, expected_SW)
    expected_NW, out_NW = (np.full((n, half + brain + full), 7, F32) for _ in range(2))
    kernels.widen(out_SW, slots_N, out_NW, half, brain)
    reference.widen(out_SW, slots_N, expected_NW, half, brain)
    assert same_bytes(out_NW, expected_NW)
    expected_ND, out_ND = (np.full((n, half), 7, F32) for _ in range(2))
    kernels.gather_half(out_SW, slots_N, out_ND)
    reference.gather_half(out_SW, slots_N, expected_ND)
    assert same_bytes(out_ND, expected_ND)


def there(items, half, brain):
    out = np.empty((1, len(items)), F32)
    kernels.widen(items[None], np.array([0]), out, half, brain)
    return out


def back(rows, half, brain):
    nearest, random = (np.empty((1, rows.shape[1]), np.uint16) for _ in range(2))
    kernels.narrow(rows, np.array([0]), nearest, half, brain)
    kernels.narrow_stochastic(rows, np.array([0]), random, half, brain, np.uint64(1), np.uint64(2), np.array([3]))
    assert same_bytes(nearest, random)
    return nearest[0]


def test_all_of_binary16_and_of_bfloat16_is_widened_exactly_and_comes_back():
    """A NaN comes back as one, whatever its payload."""
    n = len(ALL_ITEMS)
    wide = there(ALL_ITEMS, n, 0)
    np.testing.assert_array_equal(wide[0], ALL_ITEMS.view(np.float16).astype(F32))
    assert same_bytes(back(wide, n, 0)[~NAN16], ALL_ITEMS[~NAN16])
    assert ((back(wide, n, 0) & 0x7FFF)[NAN16] == 0x7E00).all()
    wide = there(ALL_ITEMS, 0, n)
    assert same_bytes(wide[0], (ALL_ITEMS.astype(np.uint32) << np.uint32(16)).view(F32))
    assert same_bytes(back(wide, 0, n)[~NAN_BRAIN], ALL_ITEMS[~NAN_BRAIN])
    assert ((back(wide, 0, n) & 0x7FFF)[NAN_BRAIN] == 0x7FC0).all()


def test_rounding_to_nearest_is_numpys_but_stops_at_the_largest():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2**32, (1, 100_000), dtype=np.uint32).view(F32)
    rows[0, ::2] = rng.standard_normal(50_000) * 10.0 ** rng.uniform(-9, 5, 50_000)
    rows = rows[np.isfinite(rows)][None]
    out = np.empty(rows.shape, np.uint16)
    kernels.narrow(rows, np.array([0]), out, rows.shape[1], 0)
    assert same_bytes(out, np.clip(rows, -65504, 65504).astype(np.float16).view(np.uint16))


def rounded(value, n, width, brain=False):
    """`value` rounded stochastically n times `width` times, by as many ids and pushes, as float32."""
    pushes = 8
    out = np.empty((pushes * n, width), np.uint16)
    half, rest = (0, width) if brain else (width, 0)
    rows, slots = np.full((n, width), value, F32), np.arange(n)
    for push in range(pushes):
        into = out[push * n : (push + 1) * n]
        kernels.narrow_stochastic(rows, slots, into, half, rest, np.uint64(5), np.uint64(push), np.arange(n))
    wide = np.empty(out.shape, F32)
    kernels.widen(out, np.arange(len(out)), wide, half, rest)
    return wide.astype(np.float64)


@pytest.mark.parametrize("brain", [False, True])
@pytest.mark.parametrize("value", [0.1, -0.3, 1 + 2**-20, 3e-5, -1e-7, 2e-9, 1234.567, 65503.0, 6.1e-5])
def test_the_mean_of_many_roundings_is_the_value(value, brain):
    seen = rounded(value, 2_000, 50, brain)
    error = seen.mean() - float(F32(value))
    assert abs(error) < 5 * seen.std() / np.sqrt(seen.size)
    assert len(np.unique(seen)) == 2


def test_roundings_of_other_pushes_ids_and_elements_have_nothing_to_do_with_each_other():
    """0.5 quanta: up and down are equally likely, and any two neighbours agree every other time."""
    up = (rounded(1 + 2**-11, 2_000, 51) > 1).reshape(8, 2_000, 51)
    for one, other in (
        (up[1:], up[:-1]),
        (up[:, 1:], up[:, :-1]),
        (up[:, :, 1:], up[:, :, :-1]),
        (up[1:, 1:], up[:-1, :-1]),
        (up[1:, :-1], up[:-1, 1:]),
    ):
        agree = (one == other).mean()
        assert abs(agree - 0.5) < 5 * 0.5 / np.sqrt(one.size)
    equal = np.stack([up[push, push] for push in range(8)])
    assert len(np.unique(equal, axis=0)) == 8, "id = push is no special case"


def test_a_finite_number_never_becomes_infinite():
    huge = np.array([[np.finfo(F32).max, -3.4e38, 65505, -65520, 65519.99]], F32)
    slot, items = np.array([0]), np.empty((1, 5), np.uint16)
    for seed in range(20):
        arguments = (np.uint64(seed), np.uint64(0), np.array([3]))
        kernels.narrow_stochastic(huge, slot, items, 5, 0, *arguments)
        assert there(items[0], 5, 0).tolist() == [[65504, -65504, 65504, -65504, 65504]]
        kernels.narrow_stochastic(huge, slot, items, 0, 5, *arguments)
        assert np.isfinite(there(items[0], 0, 5)).all()
    kernels.narrow(huge, slot, items, 5, 0)
    assert there(items[0], 5, 0).tolist() == [[65504, -65504, 65504, -65504, 65504]]
    kernels.narrow(huge, slot, items, 0, 5)
    assert np.isfinite(there(items[0], 0, 5)).all()


def test_nothing_depends_on_place_or_order():
    rng = np.random.default_rng(1)
    rows_NW, ids_N = rng.standard_normal((50, 9)).astype(F32), ids_of_hash(np.arange(50, dtype=np.uint64))
    order_N = rng.permutation(50)
    out, other = np.zeros((60, 9), np.uint16), np.zeros((60, 9), np.uint16)
    arguments = (5, 4, np.uint64(1), np.uint64(9))
    kernels.narrow_stochastic(rows_NW, np.arange(50), out, *arguments, ids_N)
    slots_N = rng.permutation(60)[:50]
    kernels.narrow_stochastic(rows_NW[order_N], slots_N, other, *arguments, frozen(ids_N[order_N]))
    assert same_bytes(other[slots_N], out[order_N])
