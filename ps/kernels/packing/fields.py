"""How many fields a protobuf message has, counted before anybody builds it.

A field of two bytes may become an object of a kilobyte, so what a message costs goes by its fields, not by its bytes.
Nothing is allocated here: lengths are followed, bodies are skipped.

The messages that may be within each other are a table: submessages_MF[m, number] is the row of the message in that
field of message m, or LEAF. Fields that are not in it are skipped whole, whatever they hold.
"""

from __future__ import annotations

import numpy as np

from ps.arrays import Bytes, Ints
from ps.kernels.kernel import helper, kernel

LEAF = -1
DEPTH = 8
"""How deep messages may lie within messages."""
COUNTED, MALFORMED = 0, -1

_SEVEN, _TAG_BITS = np.uint64(7), np.uint64(3)


@kernel(read_only="data")
def count_fields(data: Bytes, submessages_MF: Ints, root: int, most: int, found_2: Ints) -> int:
    """found = (fields, messages within messages), all levels together. Counting ends where there are more than `most`
    fields. COUNTED, or MALFORMED where the bytes are no message, or one that is nested deeper than DEPTH."""
    ends_L, kinds_L = np.empty(DEPTH, np.int64), np.empty(DEPTH, np.int64)
    level, at = 0, np.int64(0)
    ends_L[0], kinds_L[0] = len(data), root
    found_2[0] = found_2[1] = 0
    while True:
        while at == ends_L[level]:
            if level == 0:
                return COUNTED
            level -= 1
        end = ends_L[level]
        tag, at = _varint(data, at, end)
        if at >= 0:
            found_2[0] += 1
            if found_2[0] > most:
                return COUNTED
            at, body = _skipped(data, at, end, np.int64(tag & _SEVEN))
        if at < 0:
            return MALFORMED
        number = np.int64(tag >> _TAG_BITS)
        if body >= 0 and 0 <= number < submessages_MF.shape[1] and submessages_MF[kinds_L[level], number] != LEAF:
            found_2[1] += 1
            level += 1
            if level == DEPTH:
                return MALFORMED
            ends_L[level], kinds_L[level] = at, submessages_MF[kinds_L[level - 1], number]
            at = body


@helper()
def _skipped(data: Bytes, at: np.int64, end: np.int64, wire_type: np.int64) -> tuple[np.int64, np.int64]:
    """Where a field ends, -1 if that is beyond `end`; and where its body begins, -1 if it is none that has a length."""
    body = np.int64(-1)
    if wire_type == 0:
        at = _varint(data, at, end)[1]
    elif wire_type == 1:
        at += 8
    elif wire_type == 5:
        at += 4
    elif wire_type == 2:
        size, body = _varint(data, at, end)
        at = body + np.int64(size) if body >= 0 and size <= np.uint64(end - body) else np.int64(-1)
    else:
        at = np.int64(-1)
    return (at if at <= end else np.int64(-1)), body


@helper()
def _varint(data: Bytes, at: np.int64, end: np.int64) -> tuple[np.uint64, np.int64]:
    """The number and where it ends; -1 if it does not end in time."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < end and shift < np.uint64(70):
        byte = np.uint64(data[at])
        at += 1
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return value, np.int64(at)
        shift += _SEVEN
    return value, np.int64(-1)
