"""Ascending ids <-> bytes: exact, small, and never an exception of another kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ps.errors import InvalidArgument, LengthMismatch
from ps.wire.sorted_ids import decode_sorted_ids, encode_sorted_ids

INT64 = np.iinfo(np.int64)
unique_ids = arrays.arrays(np.int64, st.integers(0, 300)).map(np.unique)


@given(unique_ids)
def test_ids_come_back_from_any_kind_of_bytes(ids_N: np.ndarray) -> None:
    data = encode_sorted_ids(ids_N)
    assert len(data) <= 8 * len(ids_N) + len(ids_N) / 100 + 8
    for given_data in (data, bytearray(data), memoryview(b"x" + data)[1:]):
        back_N = decode_sorted_ids(given_data)
        assert back_N.dtype == np.int64
        np.testing.assert_array_equal(back_N, ids_N)


def test_a_strided_array_is_taken() -> None:
    np.testing.assert_array_equal(decode_sorted_ids(encode_sorted_ids(np.arange(10)[::3])), [0, 3, 6, 9])


def test_random_ids_take_near_what_any_code_needs() -> None:
    """log2 of how many sets of n ids of 10**7 there are is n * (log2(10**7 / n) + 1.44) bits."""
    ids_N = np.unique(np.random.default_rng(0).integers(0, 10**7, 100_000))
    bits = 8 * len(encode_sorted_ids(ids_N)) / len(ids_N)
    assert bits < 1.02 * (np.log2(10**7 / len(ids_N)) + 1.4427)


def test_hashes_take_less_than_eight_bytes_each() -> None:
    ids_N = np.unique(np.random.default_rng(0).integers(INT64.min, INT64.max, 100_000))
    assert len(encode_sorted_ids(ids_N)) < 6.2 * len(ids_N)


@pytest.mark.parametrize("ids", [[3, 3], [5, 4], [0, INT64.min]])
def test_ids_that_do_not_ascend_are_named(ids: list[int]) -> None:
    with pytest.raises(InvalidArgument, match=f"id {ids[0]} is followed by {ids[1]}; sort them"):
        encode_sorted_ids(np.array([-9, *ids] if ids[0] > -9 else ids))


WHOLE = encode_sorted_ids(np.arange(0, 2996, 7))
"""Its last byte is half padding."""
TWO_FROM_0 = b"\2\0\0\0" + bytes(8)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        (b"", LengthMismatch, "0 bytes are too few"),
        (b"\0\0\0", LengthMismatch, "3 bytes are too few"),
        (b"\1\0\0\0" + bytes(7), LengthMismatch, "11 bytes are too few"),
        (b"\0\0\0\0\0", LengthMismatch, "0 ids cannot be in 1 bytes"),
        (b"\xff\xff\xff\xff" + bytes(1000), LengthMismatch, "4,294,967,295 ids cannot be in 992 bytes"),
        (WHOLE[:-1], LengthMismatch, "end before the last of 428 ids"),
        (WHOLE + b"\0", LengthMismatch, "left over after 428 ids"),
        (WHOLE[:-1] + bytes([WHOLE[-1] | 0x80]), LengthMismatch, "left over after 428 ids"),
        (WHOLE[:12] + b"\x40" + WHOLE[13:], InvalidArgument, "parameter above 63"),
        (b"\2\0\0\0" + b"\xff" * 7 + b"\x7f" + b"\0\1", InvalidArgument, "beyond 2"),
        (TWO_FROM_0 + b"\x3f" + b"\xff" * 7 + b"\x7f\1", InvalidArgument, "beyond 2"),  # a gap of 2**64 - 1
        (TWO_FROM_0 + b"\x3e" + bytes(8) + b"\4", InvalidArgument, "beyond 2"),  # a gap of 2**64
    ],
)
def test_what_is_wrong_with_malformed_bytes_is_said(data: bytes, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        decode_sorted_ids(data)


@given(st.integers(0, 2000), st.binary(max_size=200))
def test_random_bytes_are_ascending_ids_or_refused(n: int, data: bytes) -> None:
    check(n.to_bytes(4, "little") + data)


@given(unique_ids, st.data())
def test_damaged_bytes_are_ascending_ids_or_refused(ids_N: np.ndarray, data: st.DataObject) -> None:
    damaged = bytearray(encode_sorted_ids(ids_N))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        if data.draw(st.booleans()):
            damaged[at : at + 1] = data.draw(st.binary(max_size=3))
        else:
            del damaged[at:]
    check(bytes(damaged))


def check(data: bytes) -> None:
    try:
        ids_N = decode_sorted_ids(data)
    except InvalidArgument:
        return
    assert (ids_N[1:] > ids_N[:-1]).all()
    np.testing.assert_array_equal(decode_sorted_ids(encode_sorted_ids(ids_N)), ids_N)
