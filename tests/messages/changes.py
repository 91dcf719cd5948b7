"""What may be changed of a request: its fields, its bytes, the order of its messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ps.v1 import embedding_pb2 as pb
from ps.wire import codec
from ps.wire.sorted_ids import encode_sorted_ids
from tests.messages.parts import EDGES, MAX_BYTES, Parts
from tests.unit.kernels.strategies import ids_of_hash


def _repeat(make: Parts, messages: list[Any]) -> list[Any]:
    """A message within, or an empty one, very often."""
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.is_repeated and field.message_type is not None]
    if fields:
        field = make.random.choice(fields)
        values = getattr(message, field.name)
        if field.message_type.GetOptions().map_entry:
            n = make.size() // 16
            values.update({f"{k:x}": 1.0 for k in range(n)})
            return messages
        inner = values[0] if len(values) and make.random.random() < 0.5 else field.message_type._concrete_class()
        n = make.size() // max(inner.ByteSize() + 2, 2)
        values.extend([inner] * n)
    return messages


def _number(make: Parts, messages: list[Any]) -> list[Any]:
    """Another number, mostly an edge of something."""
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.cpp_type in _NUMBERS and not field.is_repeated]
    if fields:
        field = make.random.choice(fields)
        low, high = _NUMBERS[field.cpp_type]
        value = make.random.choice([*EDGES, make.random.getrandbits(64), *(-edge for edge in EDGES)])
        setattr(message, field.name, type(getattr(message, field.name))(min(max(value, low), high)))
    return messages


_D = pb.DESCRIPTOR.message_types_by_name["Header"].fields[0]
_NUMBERS = {
    _D.CPPTYPE_UINT32: (0, 2**32 - 1),
    _D.CPPTYPE_UINT64: (0, 2**64 - 1),
    _D.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    _D.CPPTYPE_ENUM: (0, 99),
    _D.CPPTYPE_FLOAT: (-1e38, 1e38),
    _D.CPPTYPE_BOOL: (0, 1),
}


def _bytes(make: Parts, messages: list[Any]) -> list[Any]:
    """Other bytes: longer, shorter, with another count in front."""
    rng = make.random
    message, fields = make.fields(messages)
    fields = [field for field in fields if field.cpp_type == field.CPPTYPE_STRING and not field.is_repeated]
    if not fields:
        return messages
    field = rng.choice(fields)
    value = getattr(message, field.name)
    if isinstance(value, str):
        setattr(message, field.name, rng.choice(["", "t", "x" * make.size(), "\u00e9" * 50, "\0", value * 3]))
        return messages
    changed = [
        lambda: value[: rng.randint(0, len(value))],
        lambda: value + bytes(make.size()),
        lambda: value + rng.randbytes(make.size()),
        lambda: min(rng.choice(EDGES), 2**32 - 1).to_bytes(4, "little") + value[4:],
        lambda: rng.randbytes(make.size()),
        lambda: bytes((make.size() * 8 - 1).bit_length() // 8) + value,
        lambda: _dense(make.size()),
        lambda: (make.size() * 4).to_bytes(4, "little") + b"\x01" + bytes(make.size()),
    ]
    setattr(message, field.name, rng.choice(changed)())
    return messages


def _dense(size: int) -> bytes:
    """Sorted ids of a bit each."""
    return encode_sorted_ids(np.arange(8 * max(size, 1)))


def _dense_ids(make: Parts, messages: list[Any]) -> list[Any]:
    """As many ids, and bags of them, as bits can say."""
    message, _ = make.fields(messages)
    if isinstance(message, pb.TableIds):
        message.ClearField("ids")
        message.sorted_ids = _dense(make.size(MAX_BYTES // 2))
        if make.random.random() < 0.3:
            message.ids, message.sorted_ids = bytes(8), b""
            size = make.size(MAX_BYTES // 2)
            message.bags = (8 * size).to_bytes(4, "little") + b"\x01" + bytes(2 * size)
    return messages


def _colliding(make: Parts, messages: list[Any]) -> list[Any]:
    """Ids whose hashes agree in their low 32 bits, in no order."""
    message, _ = make.fields(messages)
    if isinstance(message, pb.TableIds):
        n = make.size(MAX_BYTES // 8)
        ids_N = ids_of_hash(np.arange(1, n + 1, dtype=np.uint64) << np.uint64(32))
        message.ClearField("sorted_ids")
        message.ids = np.random.default_rng(n).permutation(ids_N).tobytes()
    return messages


def _clear(make: Parts, messages: list[Any]) -> list[Any]:
    """Without a field."""
    message, fields = make.fields(messages)
    message.ClearField(make.random.choice(fields).name) if fields else None
    return messages


def _unknown(make: Parts, messages: list[Any]) -> list[Any]:
    """Fields that nobody knows, very often, at any level."""
    message, _ = make.fields(messages)
    one = make.random.choice(
        [b"\xa0\x06\x01", b"\xa2\x06\x00", b"\xa2\x06\x03abc", b"\xa5\x06abcd", b"\xa3\x06\xa4\x06"]
    )
    message.MergeFromString(one * (make.size() // len(one)))
    return messages


def _raw(make: Parts, messages: list[Any]) -> list[Any]:
    """Bytes changed, cut, put in and repeated."""
    rng = make.random
    if not messages:
        return messages
    at = rng.randrange(len(messages))
    data = bytearray(messages[at] if isinstance(messages[at], bytes) else messages[at].SerializeToString())
    for _ in range(rng.randint(1, 8)):
        where = rng.randint(0, len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[where : where + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            piece = bytes(data[where : where + rng.randint(1, 64)])
            data[where:where] = piece * (make.size() // max(len(piece), 1))
        else:
            data[where:where] = rng.randbytes(make.size(4096))
    return [*messages[:at], bytes(data), *messages[at + 1 :]]


def _anything(make: Parts, messages: list[Any]) -> list[Any]:
    """No message at all."""
    rng = make.random
    size = make.size()
    return [rng.choice([rng.randbytes(size), b"\x08" * size, b"\x0a\x00" * (size // 2), b"\x78\x01" * (size // 2)])]


def _other_chunks(make: Parts, messages: list[Any]) -> list[Any]:
    """A stream's messages lost, doubled, in other orders, or in very small pieces."""
    rng = make.random
    kind = rng.randrange(4)
    if kind == 0:
        return messages[: rng.randint(0, len(messages))]
    if kind == 1:
        return messages + messages[1:]
    if kind == 2:
        return rng.sample(messages, len(messages))
    return messages[:1] + [codec.payload_message(bytes(rng.choice([0, 1, 16])))] * make.size(6000)


CHANGES: list[Callable[[Parts, list[Any]], list[Any]]] = [
    *(
        _repeat,
        _repeat,
        _number,
        _number,
        _bytes,
        _bytes,
        _bytes,
        _colliding,
        _clear,
        _dense_ids,
        _dense_ids,
        _unknown,
        _raw,
        _anything,
        _other_chunks,
    )
]
