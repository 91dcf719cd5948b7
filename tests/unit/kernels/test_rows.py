from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.reference.rows import rows as reference
from ps.kernels.rows import rows as kernels
from ps.kernels.rows.init import NORMAL, UNIFORM, init_rows
from ps.kernels.updates.optim import KERNELS
from ps.runtime import memory
from ps.runtime.memory import ReservedArray

from .strategies import frozen, given, same_bytes

F32 = np.float32
cases = given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 40), st.integers(0, 2**32))


def arena_and_slots(slots, dim, n, seed):
    """An arena with two floats of state a row, and n slots of it, some of them -1."""
    rng = np.random.default_rng(seed)
    rows_SW = rng.standard_normal((slots + 1, dim + 2)).astype(F32)
    return rng, rows_SW, rng.integers(-1, slots + 1, n)


@cases
def test_gather_and_scatter_are_those_of_the_reference(slots, dim, n, seed):
    rng, rows_SW, slots_N = arena_and_slots(slots, dim, n, seed)
    values_ND = rng.standard_normal((n, dim)).astype(F32)
    expected_ND = values_ND.copy()
    reference.gather(rows_SW, slots_N, expected_ND)
    expected_SW = rows_SW.copy()
    reference.scatter(expected_SW, slots_N, values_ND)
    for given_N, given_ND in ((slots_N, values_ND), (frozen(slots_N), frozen(values_ND))):
        out_ND, out_SW = values_ND.copy(), rows_SW.copy()
        kernels.gather(rows_SW, given_N, out_ND)
        kernels.scatter(out_SW, given_N, given_ND)
        assert same_bytes(out_ND, expected_ND)
        assert same_bytes(out_SW, expected_SW)


@cases
def test_gather_fills_missing_rows_from_the_initializer(slots, dim, n, seed):
    rng, rows_SW, slots_N = arena_and_slots(slots, dim, n, seed)
    ids_N = rng.integers(-(2**63), 2**63 - 1, n)
    arguments = (rows_SW, slots_N, ids_N, np.uint64(seed), UNIFORM, F32(-1), F32(1))
    expected_ND, out_ND = (np.full((n, dim), np.nan, F32) for _ in range(2))
    reference.gather_or_init(*arguments, expected_ND)
    kernels.gather_or_init(*arguments, out_ND)
    assert same_bytes(out_ND, expected_ND)


def test_a_missing_row_reads_as_the_row_that_will_be_created():
    """Also where the C library's last bit decides: both sides run the same kernel."""
    ids_N = np.arange(100)
    created_ND, read_ND = np.empty((100, 5), F32), np.empty((100, 5), F32)
    init_rows(ids_N, np.uint64(1), NORMAL, F32(0), F32(1), created_ND)
    nowhere_N = np.full(100, -1)
    kernels.gather_or_init(np.empty((1, 5), F32), nowhere_N, ids_N, np.uint64(1), NORMAL, F32(0), F32(1), read_ND)
    assert same_bytes(read_ND, created_ND)


@given(st.integers(0, 40), st.integers(1, 30), st.integers(0, 2**32))
def test_take_and_place_are_those_of_the_reference_and_undo_each_other(n, dim, seed):
    rng = np.random.default_rng(seed)
    rows_ND = rng.standard_normal((n, dim)).astype(F32)
    positions_N = rng.permutation(n)
    for given_N, given_ND in ((positions_N, rows_ND), (frozen(positions_N), frozen(rows_ND))):
        taken_ND, placed_ND, expected_ND = (np.empty_like(rows_ND) for _ in range(3))
        kernels.take(given_ND, given_N, taken_ND)
        reference.take(rows_ND, positions_N, expected_ND)
        assert same_bytes(taken_ND, expected_ND)
        kernels.place(taken_ND, given_N, placed_ND)
        assert same_bytes(placed_ND, rows_ND)
        reference.place(taken_ND, positions_N, expected_ND)
        assert same_bytes(expected_ND, rows_ND)


@given(st.integers(1, 3 * kernels.CHECK_BLOCK), st.data())
def test_one_bad_element_is_found_wherever_it_is(n, data):
    flat_N = np.full(n, np.finfo(F32).max, F32)
    flat_N[::3] *= -1
    flat_N[1::7] = F32(-0.0)
    flat_N[2::7] = np.finfo(F32).smallest_subnormal
    assert kernels.all_finite(flat_N)
    flat_N[data.draw(st.integers(0, n - 1))] = data.draw(st.sampled_from([np.nan, -np.nan, np.inf, -np.inf]))
    assert not kernels.all_finite(flat_N)
    assert not kernels.all_finite(frozen(flat_N))
    assert not reference.all_finite(flat_N)


def test_an_empty_array_is_finite():
    assert kernels.all_finite(np.empty(0, F32))


def test_every_pattern_of_bits_is_judged_as_numpy_judges_it():
    """All signs and exponents, with three mantissas."""
    bits = (np.arange(512, dtype=np.uint32) << np.uint32(23))[:, None] | np.array([0, 1, 0x7FFFFF], np.uint32)
    for value in bits.reshape(-1).view(F32):
        one = np.array([value], F32)
        assert kernels.all_finite(one) == np.isfinite(value)


@pytest.fixture
def vast(monkeypatch):
    """An arena of more than 2**31 floats, of which only the pages that are touched exist."""
    dim = 64
    monkeypatch.setattr(memory, "FIRST_BYTES", 16 << 30)
    arena = ReservedArray((dim + 1,), F32, 2**31 // dim + 1000)
    yield arena.array
    arena.close()


def test_rows_beyond_2_to_the_31_floats_are_reached(vast):
    assert vast.size > 2**31
    slots_N = np.array([len(vast) - 1, 2**31 // 65 + 1, 0])
    values_ND = np.arange(3 * 64, dtype=F32).reshape(3, 64)
    out_ND = np.zeros_like(values_ND)
    kernels.scatter(vast, slots_N, values_ND)
    kernels.gather(vast, slots_N, out_ND)
    assert same_bytes(out_ND, values_ND)
    assert same_bytes(vast[-1, :64].copy(), values_ND[0])
    KERNELS["rowwise_adagrad"](vast, slots_N, np.ones_like(values_ND), F32(1), F32(1))
    assert vast[slots_N, 64].tolist() == [1, 1, 1]
    assert same_bytes(vast[slots_N, :64], values_ND - F32(0.5))


@given(st.lists(st.integers(-3, 8), max_size=6), st.integers(0, 2**32))
def test_free_slots_come_back_last_in_first_out(sizes, seed):
    """Positive: so many slots, some of them -1, are freed. Negative: so many are taken."""
    rng, order = np.random.default_rng(seed), 0
    links_S, expected_S = (np.full(64, 77) for _ in range(2))
    head = expected_head = -1
    stack: list[int] = []
    slots_S = rng.permutation(64)
    for size in sizes:
        if size >= 0:
            slots_N = np.where(rng.random(size) < 0.2, -1, slots_S[order : order + size])
            order += size
            head = kernels.push_free(links_S, head, frozen(slots_N))
            expected_head = reference.push_free(expected_S, expected_head, slots_N)
            stack += [int(slot) for slot in slots_N if slot >= 0]
        else:
            out_N, expected_N = (np.empty(min(-size, len(stack)), np.int64) for _ in range(2))
            head = kernels.pop_free(links_S, head, out_N)
            expected_head = reference.pop_free(expected_S, expected_head, expected_N)
            assert out_N.tolist() == expected_N.tolist() == [stack.pop() for _ in out_N]
        assert same_bytes(links_S, expected_S)
        assert head == expected_head == (stack[-1] if stack else -1)
