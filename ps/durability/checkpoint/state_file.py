"""The file `state` of a part: names and what they stand for. Numbers are little-endian.

state = head names array*
head  = "psSTATE1" length(u64) crc(u32) 0(u32)     of the names; crc is their CRC-32C
names = JSON: [[name, value], ...], with spaces behind it up to a multiple of 8
value = null, a number, a text, or {"array": dtype, "shape": [...], "crc": CRC-32C}
array = its elements in C order, then zeros up to a multiple of 8; in the order of the names
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from ps.durability.checkpoint.reading import Reading
from ps.kept import KeptState
from ps.runtime.files import RawBytes

_HEAD = struct.Struct("<8sQII")
_MAGIC = b"psSTATE1"
_TYPES = {np.dtype(kind).str for kind in ("?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8")}


def pack_state(state: KeptState) -> Iterator[RawBytes]:
    """Yields the bytes of a state; no array is copied that lies in one piece."""
    arrays: list[npt.NDArray[Any]] = []
    names = json.dumps([[name, _told(value, arrays)] for name, value in state.items()]).encode()
    names += b" " * (-len(names) % 8)
    yield _HEAD.pack(_MAGIC, len(names), crc32c(names), 0) + names
    for array in arrays:
        if array.nbytes:
            yield _bytes(array)
            yield bytes(-array.nbytes % 8)


def read_state(file: Reading) -> dict[str, Any]:
    """Reads a state. Raises CheckpointCorrupt, whatever the bytes are, and DiskError."""
    magic, length, crc, zero = _HEAD.unpack(file.bytes(_HEAD.size))
    if magic != _MAGIC or zero:
        raise file.damaged(0, "this is no state of a shard")
    names = file.bytes(length)
    if crc32c(names) != crc:
        raise file.damaged(_HEAD.size, f"the {length:,} bytes of its names are not those that were written")
    try:
        told = json.loads(names)
        state = {name: _value(value, file) for name, value in told}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise file.damaged(_HEAD.size, f"its names cannot be read: {error}") from error
    file.end()
    return state


def _told(value: Any, arrays: list[npt.NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray):
        kind = value.dtype.newbyteorder("<") if value.dtype.byteorder == ">" else value.dtype
        array = np.asarray(value, kind, order="C")
        if array.dtype.str not in _TYPES:
            raise TypeError(f"state has an array of {array.dtype}: no file of a checkpoint can have it")
        arrays.append(array)
        return {"array": array.dtype.str, "shape": array.shape, "crc": crc32c(_bytes(array))}
    return value.item() if isinstance(value, np.generic) else value


def _value(told: Any, file: Reading) -> Any:
    if not isinstance(told, dict):
        return told
    kind, shape = told["array"], tuple(told["shape"])
    if kind not in _TYPES or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"there is no array of type {kind!r} and shape {shape}")
    at = file.at
    array = file.array(np.dtype(kind), math.prod(shape))
    pad = file.bytes(-array.nbytes % 8)
    if crc32c(_bytes(array)) != told["crc"] or any(pad):
        raise file.damaged(at, f"the {array.nbytes:,} bytes of an array are not those that were written")
    return array.reshape(shape)


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
