"""Encodes arrays as messages, and decodes them.

    message   = head | payload           of a stream; the head comes first (a message with both is understood)
    head      = protobuf fields          small: names, shapes, ids
    payload   = 0x7A varint(n) byte*n    field 15, `bytes`
    ids       = int64-le*
    counts    = uint32-le* | uint8*       one each; bytes where all fit
    flags     = bits, from the lowest of the first byte on
    rows      = blocks of ps/wire/encodings.py; of a WriteChunk or ExportChunk float32-le*, whole rows in a chunk

The result is plain protobuf that any language reads. The payload is framed by hand because the runtime
would copy it twice on each side: for 25 MB of rows that is 10 ms, as much as the transfer itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import xxhash
from google.protobuf.message import DecodeError, Message

from ps.errors import InvalidArgument, LengthMismatch
from ps.v1 import embedding_pb2 as pb

CHUNK_BYTES = 3 << 19
"""Bytes of payload in one message of a stream, at most 2 MiB. Each message costs about 0.2 ms beside its bytes; with a
larger one the other side begins later. Pushes of 25 MB are 18 % slower with 0.5 MiB, 4 % with 1 MiB, and the same with
2 MiB."""

MAX_STREAM_FIELDS = 8192
"""The most fields of one message: a chunk of a pull says for each table how many rows of it follow."""

_PAYLOAD_TAG = 15 << 3 | 2
_FRAME_BYTES = 4

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes, _new_bytes.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object
_address_of_bytes = ctypes.pythonapi.PyBytes_AsString
_address_of_bytes.argtypes, _address_of_bytes.restype = (ctypes.py_object,), ctypes.c_void_p

M = TypeVar("M", bound=Message)
Buffer = bytes | bytearray | memoryview


def payload_message(payload: Buffer, fields: bytes = b"") -> bytes:
    """Returns a message of a payload, with other fields after it. The length is padded to three varint bytes, so that
    the rows start at a multiple of four and numpy and the kernels can read them where they lie."""
    n = len(payload)
    if n >= 1 << 21:
        raise InvalidArgument(f"a chunk of {n:,} bytes: at most {(1 << 21) - 1:,}")
    return b"".join((bytes((_PAYLOAD_TAG, n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14)), payload, fields))


def blank_payload_message(n_floats: int, fields: bytes = b"") -> tuple[bytes, npt.NDArray[np.float32]]:
    """Returns a message of a payload, with other fields after it, and a float32 view [n_floats] to write its rows to:
    to gather straight into the message saves a copy of every row. Write before the message is passed on: from then on
    it must not change, as other bytes.

    CPython documents this for bytes objects made by PyBytes_FromStringAndSize(NULL, n) and not yet shared.
    """
    n = n_floats * 4
    message = _new_bytes(None, _FRAME_BYTES + n + len(fields))
    buffer = (ctypes.c_uint8 * len(message)).from_address(_address_of_bytes(message))
    view = np.ctypeslib.as_array(buffer)
    view[:_FRAME_BYTES] = (_PAYLOAD_TAG, n & 0x7F | 0x80, n >> 7 & 0x7F | 0x80, n >> 14)
    view[_FRAME_BYTES + n :] = np.frombuffer(fields, np.uint8)
    return message, view[_FRAME_BYTES : _FRAME_BYTES + n].view(np.float32)


def parse(kind: type[M], data: Buffer) -> M:
    """Returns a message without payload, from a sender that is trusted to send a small one (see `ps.wire.requests`).
    Raises InvalidArgument."""
    try:
        return kind.FromString(bytes(data))
    except DecodeError as error:
        raise InvalidArgument(f"malformed {kind.DESCRIPTOR.name}: {error}") from None


def split(kind: type[M], data: bytes) -> tuple[M, memoryview]:
    """Returns the head and a view of the payload, which is not copied. Raises InvalidArgument."""
    head, payload = cut(data)
    return parse(kind, head), payload


def payload_of(data: bytes) -> memoryview:
    """Returns the payload alone, as a view."""
    return cut(data)[1]


def payload_bytes(data: bytes) -> int:
    """Returns the length of the payload without copying it; raises InvalidArgument."""
    found = 0
    for tag, _, body, end in _fields(memoryview(data)):
        if tag == _PAYLOAD_TAG:
            found = end - body
    return found


def cut(data: bytes) -> tuple[bytearray, memoryview]:
    """Returns the head's bytes and a view of the payload; if there are several payloads, of the last. Raises
    InvalidArgument."""
    view = memoryview(data)
    payload, head = view[:0], bytearray()
    for tag, start, body, end in _fields(view):
        if tag == _PAYLOAD_TAG:
            payload = view[body:end]
        else:
            head += view[start:end]
    return head, payload


def _fields(view: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yields (tag, where the field begins, where its body begins, where it ends) of each field. They are looked at one
    by one, so there may not be many."""
    position = 0
    for _ in range(MAX_STREAM_FIELDS):
        if position == len(view):
            return
        start = position
        tag, position = _read_varint(view, position)
        body, position = _skip(view, position, tag & 7)
        yield tag, start, body, position
    if position < len(view):
        raise InvalidArgument(
            f"malformed message: {len(view):,} bytes of a stream have more than {MAX_STREAM_FIELDS:,} fields: a head, "
            "a payload and the parts of it"
        )


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(view) and shift < 64:
        byte = view[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7
    raise InvalidArgument(f"malformed message: a varint runs past byte {position}")


def _skip(view: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Returns where the field's body starts and where the field ends."""
    if wire_type == 0:
        end = _read_varint(view, position)[1]
    elif wire_type == 1:
        end = position + 8
    elif wire_type == 2:
        length, position = _read_varint(view, position)
        end = position + length
    elif wire_type == 5:
        end = position + 4
    else:
        raise InvalidArgument(f"malformed message: wire type {wire_type} at byte {position}")
    if end > len(view):
        raise InvalidArgument(f"malformed message: a field ends at byte {end} of {len(view)}")
    return position, end


# ids and counts


def encode_ids(ids_N: npt.NDArray[np.int64]) -> bytes:
    """Returns the bytes of ids, int64 [n]."""
    return ids_N.astype("<i8", copy=False).tobytes()


def decode_ids(data: bytes) -> npt.NDArray[np.int64]:
    """Returns ids, a read-only int64 [n], of bytes."""
    return _vector(data, np.dtype("<i8"), "ids")


def encode_counts(counts_N: npt.NDArray[np.uint32] | None) -> bytes:
    """Returns the bytes of counts, uint32 [n], one byte each if all counts fit. None gives no bytes: every count is
    1."""
    if counts_N is None or not len(counts_N):
        return b""
    return counts_N.astype("u1" if counts_N.max() < 256 else "<u4").tobytes()


def decode_counts(data: bytes, n: int) -> npt.NDArray[np.uint32] | None:
    """Returns counts, a read-only uint32 [n], of bytes; None if every count is 1."""
    if not data:
        return None
    if len(data) == n:
        return np.frombuffer(data, np.uint8).astype(np.uint32)
    if len(data) != 4 * n:
        raise LengthMismatch(f"{len(data)} bytes of counts for {n} ids: send 1 or 4 bytes an id, or none")
    return _vector(data, np.dtype("<u4"), "counts")


def decode_scores(data: bytes) -> npt.NDArray[np.float32]:
    """Returns scores, a read-only float32 [n], of bytes."""
    return _vector(data, np.dtype("<f4"), "scores")


def encode_statistics(statistics_N2: npt.NDArray[np.uint32]) -> bytes:
    """Returns the bytes of statistics, uint32 [n, 2]."""
    return statistics_N2.astype("<u4", copy=False).tobytes()


def decode_statistics(data: bytes, n: int) -> npt.NDArray[np.uint32]:
    """Returns statistics, a read-only uint32 [n, 2], of bytes; raises LengthMismatch."""
    flat = _vector(data, np.dtype("<u4"), "statistics")
    if len(flat) != 2 * n:
        raise LengthMismatch(f"{len(flat)} numbers of statistics for {n} rows; 2 are needed for each")
    return flat.reshape(n, 2)


def encode_flags(flags_N: npt.NDArray[np.bool_] | None) -> bytes:
    """Returns the bytes of flags, bool [n]: a bit each, from the lowest of the first byte on. None gives no bytes."""
    return b"" if flags_N is None else np.packbits(flags_N, bitorder="little").tobytes()


def decode_flags(data: bytes, n: int) -> npt.NDArray[np.bool_]:
    """Returns flags, bool [n], of bytes; raises LengthMismatch. Bits beyond n are ignored."""
    if len(data) != -(-n // 8):
        raise LengthMismatch(f"{len(data)} bytes of flags for {n} rows: expected {-(-n // 8)}")
    return np.unpackbits(np.frombuffer(data, np.uint8), count=n, bitorder="little").view(np.bool_)


def digest_ids(ids: pb.IdSet) -> int:
    """Returns 64 bits that identify tables, ids, counts and bags of a push, whether these are sent or named by a
    step."""
    digest = xxhash.xxh3_64()
    for part in ids.tables:
        sent = part.ids or part.sorted_ids
        digest.update(f"{part.table} {len(sent)} {len(part.counts)} {len(part.bags)} ".encode())
        digest.update(sent)
        digest.update(part.counts)
        digest.update(part.bags)
    return digest.intdigest()


def _vector(data: Buffer, dtype: np.dtype[Any], what: str) -> npt.NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise LengthMismatch(f"{what}: {len(data)} bytes are not a whole number of {dtype}")
    return np.frombuffer(data, dtype=dtype)


# rows and gradients


def decode_rows(payload: memoryview) -> npt.NDArray[np.float32]:
    """Returns the float32 of a payload, flat. If it is aligned, as we send it, it is a read-only view without a
    copy."""
    flat = _vector(payload, np.dtype("<f4"), "rows")
    return np.require(flat, np.float32, "A")  # a foreign sender's rows may start at any byte: those are copied


def pieces(parts: Iterable[tuple[memoryview, int]]) -> Iterator[memoryview]:
    """Cuts (bytes, unit) into payloads of about CHUNK_BYTES each, each at multiples of its unit; small ones share a
    payload."""
    held: list[memoryview] = []
    room = CHUNK_BYTES
    for data, unit in parts:
        start = 0
        while start < len(data):
            take = min(len(data) - start, room // unit * unit)
            if take:
                held.append(data[start : start + take])
                room -= take
                start += take
            if start < len(data):
                yield merged(held)
                held, room = [], CHUNK_BYTES
    if held:
        yield merged(held)


def merged(held: Sequence[memoryview]) -> memoryview:
    """Returns parts joined into one; a single part is returned as it is."""
    return held[0] if len(held) == 1 else memoryview(b"".join(held))
