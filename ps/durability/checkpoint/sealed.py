"""JSON that tells whether a byte of it has changed.

    sealed = object, whose last member is "crc32c": 8 hexadecimal digits, of all bytes before the digits

The last bytes of the file are those digits, a quotation mark, a line break, a brace and a line break.
"""

from __future__ import annotations

import json
from typing import Any

from crc32c import crc32c

from ps.durability.checkpoint.stores.store import FileStore, translated
from ps.errors import CheckpointCorrupt

MOST_BYTES = 256 << 20
_BEFORE, _BEHIND, _DIGITS = b',\n  "crc32c": "', b'"\n}\n', 8


def seal(body: dict[str, Any]) -> bytes:
    """Returns an object, which has a member, as bytes."""
    text = json.dumps(body, indent=1, ensure_ascii=True).encode()
    told = text.removesuffix(b"\n}") + _BEFORE
    return told + f"{crc32c(told):08x}".encode() + _BEHIND


def unseal(data: bytes, where: str) -> dict[str, Any]:
    """Returns the object. Raises CheckpointCorrupt, whatever the bytes are."""
    told, digits = data[: -_DIGITS - len(_BEHIND)], data[-_DIGITS - len(_BEHIND) : -len(_BEHIND)]
    if not (told.endswith(_BEFORE) and data.endswith(_BEHIND)):
        raise CheckpointCorrupt(
            f"{where}, byte {max(len(data) - 1, 0):,}: the file has not the end that it should have"
        )
    if digits != f"{crc32c(told):08x}".encode():
        raise CheckpointCorrupt(f"{where}, byte 0: its {len(data):,} bytes are not those that were written")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{where}, byte {getattr(error, 'pos', 0):,}: this is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise CheckpointCorrupt(f"{where}, byte 0: this is no object of JSON")
    del body["crc32c"]
    return body


def read_whole(store: FileStore, name: str, most: int = MOST_BYTES) -> bytes:
    """Returns all bytes of a small file. Raises DiskError, and CheckpointCorrupt where it is missing or larger."""
    try:
        with translated(store.url):
            size = store.size(name)
            if size > most:
                raise CheckpointCorrupt(
                    f"{store.where(name)}, byte {most:,}: the file has {size:,} bytes, at most {most:,} are expected"
                )
            data = bytearray(size)
            n = store.read_into(name, 0, memoryview(data))
    except FileNotFoundError:
        raise CheckpointCorrupt(f"{store.where(name)}, byte 0: the file is missing") from None
    return bytes(data[:n])
