"""Bags of a step's ids <-> bytes: exact, small, and never an exception of another kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ps.errors import InvalidArgument, LengthMismatch
from ps.wire.bags import decode_bags, encode_bags


@st.composite
def structures(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    n = draw(st.sampled_from([1, 2, 3, 255, 256, 257, 2**20]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lengths_R = rng.integers(1, draw(st.sampled_from([2, 3, 100])), draw(st.integers(0, 50)))
    return lengths_R, rng.integers(0, n, lengths_R.sum()), n


@given(structures())
def test_bags_come_back_from_any_kind_of_bytes(structure: tuple[np.ndarray, np.ndarray, int]) -> None:
    lengths_R, positions_P, n = structure
    data = encode_bags(lengths_R, positions_P, n)
    bits = len(lengths_R) * 7 + len(positions_P) * max(1, (n - 1).bit_length())
    assert len(data) <= 7 + bits / 8
    for given_data in (data, bytearray(data), memoryview(b"x" + data)[1:]):
        starts_K, positions = decode_bags(given_data, n)
        assert (starts_K.dtype, positions.dtype) == (np.int64, np.int32)
        np.testing.assert_array_equal(np.diff(starts_K), lengths_R)
        np.testing.assert_array_equal(positions, positions_P)


THREE = encode_bags(np.array([1, 2, 1]), np.array([4, 0, 2, 4]), 5)
"""Lengths of a bit each, then positions of three: five bits and four are padding."""


@pytest.mark.parametrize(
    ("data", "n", "error", "match"),
    [
        (b"", 5, LengthMismatch, "0 bytes are too few"),
        (THREE[:4], 5, LengthMismatch, "4 bytes are too few"),
        (THREE[:4] + b"\0", 5, InvalidArgument, "lengths of 0 bits"),
        (THREE[:4] + b"\x21", 5, InvalidArgument, "lengths of 33 bits"),
        (b"\xff\xff\xff\xff\x20" + bytes(99), 5, LengthMismatch, "4,294,967,295 lengths of 32 bits do not fit into 99"),
        (THREE[:-1], 5, LengthMismatch, "1 bytes of positions for 4 of 3 bits"),
        (THREE + b"\0", 5, LengthMismatch, "3 bytes of positions for 4 of 3 bits"),
        (b"\1\0\0\0\x20\xff\xff\xff\xff" + bytes(9), 5, LengthMismatch, "9 bytes of positions for 4,294,967,296"),
        (THREE, 4, LengthMismatch, "2 bytes of positions for 4 of 2 bits"),
        (THREE[:5] + bytes([THREE[5] | 0x80]) + THREE[6:], 5, InvalidArgument, "a bit beyond the last number"),
        (THREE[:6] + bytes([THREE[6] | 1]) + THREE[7:], 5, InvalidArgument, "position 5 is out of range"),
        (b"\1\0\0\0\1\0\0", 0, InvalidArgument, "position 0 is out of range"),
    ],
)
def test_what_is_wrong_with_malformed_bytes_is_said(data: bytes, n: int, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        decode_bags(data, n)


@given(st.integers(0, 60), st.integers(0, 33), st.binary(max_size=100), st.integers(0, 2**31 - 1))
def test_random_bytes_are_bags_or_refused(count: int, width: int, data: bytes, n: int) -> None:
    check(count.to_bytes(4, "little") + bytes((width,)) + data, n)


@given(structures(), st.data())
def test_damaged_bytes_are_bags_or_refused(structure: tuple[np.ndarray, np.ndarray, int], data: st.DataObject) -> None:
    lengths_R, positions_P, n = structure
    damaged = bytearray(encode_bags(lengths_R, positions_P, n))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        if data.draw(st.booleans()):
            damaged[at : at + 1] = data.draw(st.binary(max_size=3))
        else:
            del damaged[at:]
    check(bytes(damaged), n)


def check(data: bytes, n: int) -> None:
    try:
        starts_K, positions_P = decode_bags(data, n)
    except InvalidArgument:
        return
    assert starts_K[0] == 0
    assert (np.diff(starts_K) >= 1).all()
    assert starts_K[-1] == len(positions_P)
    assert ((positions_P >= 0) & (positions_P < n)).all()
