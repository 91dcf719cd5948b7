"""Parses the bytes of requests, and refuses those that would take too much memory.

protobuf builds whatever it is sent, and two bytes may ask for an object of a kilobyte. So the fields of a message are
counted first (`ps.kernels.packing.fields`): it may have as many fields, and messages within, as a step of very many
tables needs. Unknown fields of a newer client are skipped, as protobuf does it, and counted.

    data calls    MAX_FIELDS fields + one for each 32 bytes; MAX_MESSAGES messages within + one for each 256
    control calls MAX_CONTROL_BYTES bytes
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from ps.errors import InvalidArgument, ResourceExhausted
from ps.kernels.packing import fields
from ps.wire import codec

M = TypeVar("M", bound=Message)

MAX_FIELDS = 32_768
MAX_MESSAGES = 4096
"""A push has two messages for a table and one for each block, so a thousand tables are well within this."""
MAX_CONTROL_BYTES = 64 << 10
"""Ten times what a table's configuration takes, or the clocks of a few hundred trainers."""

_UNCOUNTED_BYTES = 4096
"""A message of at most so many bytes cannot have many fields, and is not counted."""


def parse(kind: type[M], data: codec.Buffer) -> M:
    """Returns a request of the data plane without payload. Raises InvalidArgument, and ResourceExhausted for a request
    of too many parts."""
    if len(data) > _UNCOUNTED_BYTES:
        _check_fields(kind, data)
    return codec.parse(kind, data)


def split(kind: type[M], data: bytes) -> tuple[M, memoryview]:
    """Returns the head of a stream and a view of the payload, which is not copied. Raises as `parse` does."""
    head, payload = codec.cut(data)
    return parse(kind, head), payload


def control(kind: type[M], data: bytes) -> M:
    """Returns a request of the control plane. Raises InvalidArgument."""
    if len(data) > MAX_CONTROL_BYTES:
        raise InvalidArgument(
            f"{kind.DESCRIPTOR.name} of {len(data):,} bytes: calls of the control plane have at most "
            f"{MAX_CONTROL_BYTES:,}"
        )
    return codec.parse(kind, data)


def _check_fields(kind: type[Message], data: codec.Buffer) -> None:
    most_fields = MAX_FIELDS + len(data) // 32
    most_messages = MAX_MESSAGES + len(data) // 256
    found_2 = np.empty(2, np.int64)
    given = np.frombuffer(memoryview(data).toreadonly(), np.uint8)
    submessages = _submessages(kind)  # type: ignore[arg-type]  # classes are hashable
    if fields.count_fields(given, submessages, 0, most_fields, found_2) != fields.COUNTED:
        raise InvalidArgument(f"malformed {kind.DESCRIPTOR.name}: its {len(data):,} bytes are not one")
    for found, most, what in zip(found_2, (most_fields, most_messages), ("fields", "messages within"), strict=True):
        if found > most:
            name = kind.DESCRIPTOR.name
            raise ResourceExhausted(
                f"{name} of {len(data):,} bytes has more than {most:,} {what}: name fewer tables at once"
            )


@cache
def _submessages(kind: type[Message]) -> npt.NDArray[np.int64]:
    """Returns [messages, field numbers], as `ps.kernels.packing.fields` takes them; the first row is the message
    itself."""
    order: list[Any] = [kind.DESCRIPTOR]
    for one in order:
        for field in one.fields:
            if field.message_type is not None and field.message_type not in order:
                order.append(field.message_type)
    width = 1 + max(field.number for one in order for field in one.fields)
    found = np.full((len(order), width), fields.LEAF, np.int64)
    for row, one in enumerate(order):
        for field in one.fields:
            if field.message_type is not None:
                found[row, field.number] = order.index(field.message_type)
    return found
