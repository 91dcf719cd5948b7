"""How a log is bytes: segments, which are files, of records. Numbers are little-endian.

    folder  = LOCK segment*                     PATH/shard-K/; a segment's name is its first version: 20 digits, .log
    segment = head record*
    head    = "psLOGseg" format(u16) 0(u16) shard(u32) first(u64) before(u32) crc(u32)
    record  = "psRC" crc(u32) length(u64) version(u64) durable(u64) payload(length bytes)

- A record is one write (`ps/shard/writes/grammar.py` has the payload's grammar). Versions ascend by 1, over all
  segments.
- `crc` is the CRC-32C of what follows it in the record, of what comes before it in the head.
- `before` is the crc of the record before the first one, 0 where there is none: a segment of another history does not
  fit behind this one, whatever its versions are.
- `durable` is the last version that was known to be synced when the record was written. So where a record is damaged
  and a later one is whole, a reader can tell what a crash may leave from what had been promised.

A segment is synced before the next one is made, which also happens when a log is opened and when it is closed. So what
a crash leaves half-written is at the end of the last segment.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from crc32c import crc32c

from ps.runtime.files import RawBytes

FORMAT = 1
"""The version of this grammar, in the head of every segment."""

_SEGMENT = b"psLOGseg"
RECORD = b"psRC"
_HEAD = struct.Struct("<8sHHIQI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<4sI")
_MORE = struct.Struct("<QQQ")
HEAD_BYTES = _HEAD.size + _CRC.size
RECORD_BYTES = _RECORD.size + _MORE.size
"""Bytes of a record before its payload."""
_NAME = re.compile(r"([0-9]{20})\.log", re.ASCII)


class Head(NamedTuple):
    """The head of a segment."""

    format: int
    shard: int
    first: int
    """The version of its first record."""
    before: int
    """The crc of the record before that."""


class RecordHead(NamedTuple):
    """What a record says before its payload."""

    crc: int
    length: int
    version: int
    durable: int


def name_of(first: int) -> str:
    """Returns the name of the segment whose first record makes this version."""
    return f"{first:020d}.log"


def first_of(name: str) -> int | None:
    """Returns the first version of the segment of that name; None for another file."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found[1])


def pack_head(shard: int, first: int, before: int) -> bytes:
    """Returns the head of a segment."""
    head = _HEAD.pack(_SEGMENT, FORMAT, 0, shard, first, before)
    return head + _CRC.pack(crc32c(head))


def read_head(data: RawBytes) -> Head | None:
    """Returns the head that a segment begins with; None where it is damaged or not whole."""
    if len(data) < HEAD_BYTES:
        return None
    magic, format_, _, shard, first, before = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    if magic != _SEGMENT or crc != crc32c(bytes(data[: _HEAD.size])):
        return None
    return Head(format_, shard, first, before)


def pack_record(version: int, durable: int, payload: Sequence[RawBytes]) -> tuple[bytes, int]:
    """Returns what comes before a payload, and the record's crc. No byte of the payload is copied."""
    more = _MORE.pack(sum(map(len, payload)), version, durable)
    crc = crc32c(more)
    for piece in payload:
        crc = crc32c(piece, crc)
    return _RECORD.pack(RECORD, crc) + more, crc


def read_record_head(data: RawBytes, at: int) -> RecordHead | None:
    """Returns the head of the record at this byte, of which there are RECORD_BYTES; None where there is none."""
    magic, crc = _RECORD.unpack_from(data, at)
    return RecordHead(crc, *_MORE.unpack_from(data, at + _RECORD.size)) if magic == RECORD else None


def is_whole(head: RecordHead, payload: RawBytes) -> bool:
    """Tells whether a record is as it was written."""
    more = _MORE.pack(head.length, head.version, head.durable)
    return len(payload) == head.length and head.crc == crc32c(payload, crc32c(more))
