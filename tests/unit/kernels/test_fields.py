from __future__ import annotations

import numpy as np
import pytest
from hypothesis import strategies as st

from ps.kernels.packing import fields as kernels
from ps.kernels.reference.packing import fields as reference

from .strategies import given

SUBMESSAGES = np.array([[-1, 1, -1, 2], [-1, -1, 0, -1], [-1, -1, -1, -1]])
"""Of three messages: the first has the second in field 1 and the third in field 3; the second the first in field 2."""


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes((n & 127 | 128,)), n >> 7
    return out + bytes((n,))


def delimited(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


numbers = st.integers(1, 40)
leaves = st.builds(lambda number, n: varint(number << 3) + varint(n), numbers, st.integers(0, 2**64 - 1))
fixed = st.builds(
    lambda number, wire_type: varint(number << 3 | wire_type) + bytes(8 if wire_type == 1 else 4),
    numbers,
    st.sampled_from([1, 5]),
)
messages = st.recursive(
    st.lists(leaves | fixed, max_size=3).map(b"".join),
    lambda inner: st.lists(st.builds(delimited, st.integers(1, 5), inner), max_size=4).map(b"".join),
    max_leaves=20,
)


def counted(module, data, most=1000):
    found_2 = np.full(2, 7)
    result = module.count_fields(np.frombuffer(data, np.uint8), SUBMESSAGES, 0, most, found_2)
    return (result, *found_2.tolist()) if result == module.COUNTED else result


@given(messages, st.integers(0, 30))
def test_messages_are_counted_as_the_reference_counts_them(data, most):
    assert counted(kernels, data, most) == counted(reference, data, most)


@given(messages, st.data())
def test_so_are_damaged_ones_and_any_bytes(data, draw):
    damaged = bytearray(data) or bytearray(b"\x0a\x05")
    for _ in range(draw.draw(st.integers(1, 3))):
        damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    cut = bytes(damaged[: draw.draw(st.integers(0, len(damaged)))])
    assert counted(kernels, cut) == counted(reference, cut)


def test_messages_within_are_counted_at_every_level():
    data = delimited(1, delimited(2, delimited(1, b"") + delimited(3, b""))) + delimited(2, b"\x0a\x00")
    assert counted(kernels, data) == (kernels.COUNTED, 5, 4)


def test_counting_ends_where_there_are_more_than_anybody_wants():
    assert counted(kernels, b"\x0a\x00" * 1000, most=10)[1] == 11


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x08", b"\x08" + b"\xff" * 10, b"\x09abc"])
def test_what_is_no_message_is_said_to_be_none(data):
    assert counted(kernels, data) == kernels.MALFORMED


def test_nesting_without_end_is_none_either():
    data = b""
    for level in range(kernels.DEPTH + 1):
        data = delimited(1 if level % 2 else 2, data)
    assert counted(kernels, delimited(1, data)) == counted(reference, delimited(1, data)) == kernels.MALFORMED
