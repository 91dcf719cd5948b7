"""How many fields a protobuf message has, counted before anybody builds it.

A field of two bytes may become an object of a kilobyte, so what a message costs goes by its fields and not by its bytes.
Nothing is allocated here: lengths are followed, bodies are skipped.

The messages that may be within each other are a table: submessages[m, number] is the row of the message in that field of
message m, or LEAF. Fields that are not in it are skipped whole, whatever they hold.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

LEAF = -1
DEPTH = 8
"""Of messages within messages."""
COUNTED, MALFORMED = 0, -1

_SEVEN, _TAG_BITS = np.uint64(7), np.uint64(3)


@njit(cache=True, nogil=True)
def count_fields(data: Bytes, submessages: Numbers, root: int, most: int, found_2: Numbers) -> int:
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
        value, at = _varint(data, at, end)
        if at < 0:
            return MALFORMED
        found_2[0] += 1
        if found_2[0] > most:
            return COUNTED
        wire_type, number = np.int64(value & _SEVEN), np.int64(value >> _TAG_BITS)
        if wire_type == 0:
            value, at = _varint(data, at, end)
        elif wire_type == 1:
            at += 8
        elif wire_type == 5:
            at += 4
        elif wire_type == 2:
            value, at = _varint(data, at, end)
            if at < 0 or value > np.uint64(end - at):
                return MALFORMED
            inner = np.int64(LEAF)
            if 0 <= number < submessages.shape[1]:
                inner = submessages[kinds_L[level], number]
            if inner == LEAF:
                at += np.int64(value)
            else:
                found_2[1] += 1
                level += 1
                if level == DEPTH:
                    return MALFORMED
                ends_L[level], kinds_L[level] = at + np.int64(value), inner
        else:
            return MALFORMED
        if at < 0 or at > end:
            return MALFORMED


@njit(cache=True, nogil=True, inline="always")
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
