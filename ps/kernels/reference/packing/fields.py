"""How many fields a protobuf message has, by walking it with slices of bytes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAF, DEPTH, COUNTED, MALFORMED = -1, 8, 0, -1


def count_fields(
    data: npt.NDArray[np.uint8],
    submessages_MF: npt.NDArray[np.int64],
    root: int,
    most: int,
    found_2: npt.NDArray[np.int64],
) -> int:
    """found = (fields, messages within messages), all levels together."""
    found_2[:] = 0
    try:
        _walk(data.tobytes(), submessages_MF, root, most, found_2, 1)
    except _EnoughError:
        return COUNTED
    except ValueError:
        return MALFORMED
    return COUNTED


class _EnoughError(Exception):
    """There are more than anybody wants to know of."""


def _walk(
    data: bytes, submessages_MF: npt.NDArray[np.int64], kind: int, most: int, found_2: npt.NDArray[np.int64], depth: int
) -> None:
    if depth > DEPTH:
        raise ValueError("too deep")
    while data:
        tag, data = _varint(data)
        found_2[0] += 1
        if found_2[0] > most:
            raise _EnoughError
        wire_type, number = tag & 7, tag >> 3
        if wire_type == 0:
            _, data = _varint(data)
            continue
        if wire_type == 2:
            size, data = _varint(data)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise ValueError("no such wire type")
        if size > len(data):
            raise ValueError("short")
        inner = submessages_MF[kind, number] if wire_type == 2 and number < submessages_MF.shape[1] else LEAF
        if inner != LEAF:
            found_2[1] += 1
            _walk(data[:size], submessages_MF, int(inner), most, found_2, depth + 1)
        data = data[size:]


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for at, byte in enumerate(data[:10]):
        value |= (byte & 127) << 7 * at
        if byte < 128:
            return value & (1 << 64) - 1, data[at + 1 :]
    raise ValueError("short")
