from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from ps.kernels.packing import deltas as kernels
from ps.kernels.reference.packing import deltas as reference

from .strategies import INT64, frozen, given, id_arrays, same_bytes

gaps = st.lists(st.integers(0, 3) | st.integers(0, 2**17) | st.integers(0, 2**55), max_size=300)
runs = st.builds(lambda first, gaps: first + np.cumsum([0, *(gap + 1 for gap in gaps)]), st.integers(-(2**62), 0), gaps)
ascending = runs | id_arrays.map(np.unique).filter(len)


def coded(ids_N):
    out = np.zeros(kernels.most_bytes(len(ids_N)), np.uint8)
    size = kernels.encode(ids_N, out)
    return out[: max(size, 0)].tobytes()


def decoded(data, first, n):
    """None for a refusal. What lies beyond the margin is not to be read, nor the array written beyond its end."""
    padded = np.zeros(len(data) + kernels.MARGIN, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    out_N = np.full(n + 8, 77)
    result = kernels.decode(padded, len(data), first, out_N[:n])
    assert (out_N[n:] == 77).all()
    assert result in (0, kernels.SHORT, kernels.LONG, kernels.TOO_LARGE)
    return None if result else out_N[:n]


@given(ascending)
def test_ids_are_coded_as_by_the_reference_and_come_back(ids_N):
    assume(len(ids_N) == 1 or (np.diff(ids_N.astype(object)) > 0).all())
    data = coded(frozen(ids_N))
    assert data == reference.encode(ids_N)
    assert same_bytes(decoded(data, ids_N[0], len(ids_N)), ids_N)
    assert same_bytes(reference.decode(data, int(ids_N[0]), len(ids_N)), ids_N)


@pytest.mark.parametrize("n", [1, 2, 3, 100, 128, 129, 130, 5000])
def test_the_ends_of_the_range_and_even_steps(n):
    for ids_N in (
        np.array([INT64.min + (2**64 - 1) * i // max(n - 1, 1) for i in range(n)]),
        np.arange(INT64.min, INT64.min + n),
        np.arange(INT64.max - n + 1, INT64.max) if n > 1 else np.array([INT64.max]),
        np.r_[INT64.min, np.arange(n), INT64.max],
    ):
        data = coded(ids_N)
        assert data == reference.encode(ids_N)
        assert same_bytes(decoded(data, ids_N[0], len(ids_N)), ids_N)
        assert len(data) <= 8 * len(ids_N) + len(ids_N) / 100 + 4


@pytest.mark.parametrize("ids", [[1, 1], [2, 1], [INT64.max, INT64.min], [0, INT64.max, INT64.min], [*range(200), 5]])
def test_ids_that_do_not_ascend_are_refused(ids):
    out = np.zeros(kernels.most_bytes(len(ids)), np.uint8)
    assert kernels.encode(np.array(ids), out) == kernels.UNSORTED
    with pytest.raises(ValueError, match="unsorted"):
        reference.encode(np.array(ids))


def agreed(data, first, n):
    try:
        expected = reference.decode(data, first, n)
    except ValueError:
        expected = None
    result = decoded(data, first, n)
    assert (result is None) == (expected is None)
    assert result is None or same_bytes(result, expected)


@given(st.binary(max_size=60), st.integers(INT64.min, INT64.max), st.integers(1, 400))
def test_random_bytes_are_read_as_by_the_reference_or_refused(data, first, n):
    agreed(data, first, n)


@given(ascending, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=4), st.integers(-3, 3))
def test_damaged_bytes_are_read_as_by_the_reference_or_refused(ids_N, damage, more):
    assume(len(ids_N) == 1 or (np.diff(ids_N.astype(object)) > 0).all())
    data = bytearray(coded(ids_N))
    for at, byte in damage:
        if data:
            data[at % len(data)] ^= byte
    data = bytes(data[: len(data) + more] if more < 0 else data + bytes(more))
    agreed(data, int(ids_N[0]), max(len(ids_N) + more, 1))
