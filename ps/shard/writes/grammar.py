"""The bytes of writes: numbers and arrays are little-endian, and a length comes before the bytes that it measures.

    record  = number(u8) format(u8) entries more said
    entries = n(u16), then n times: worker(u64) sequence(u64) digest(u128)     of the ledger; none: nobody repeats it
    more    = what a replay must know and the request did not say             each kind's file has its grammar
    said    = what the request said, as it came: the digest is taken over it
    text    = n(u16) utf-8*
    array   = n(u64) items*
    ids     = form(u8) array                          0: int64, 1: compressed bytes, as the wire brought them

A `Packer` collects pieces and copies no array. An `Unpacker` believes nothing: it raises CorruptWrite, and what it
makes takes no more bytes than it was given; the decoders of compressed arrays keep their own limits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ps.arrays import Ids, Rows
from ps.errors import CorruptWrite

FORMAT = 1
"""The version of this grammar, in every record. A change of the bytes of a kind raises it and keeps the old reader."""

Piece = bytes | memoryview
Heads = Sequence[tuple[int, int]]
"""The encoding of each block of a body, and its bytes."""


class Wire(NamedTuple):
    """The decoders of what is compressed on the wire. The shard does not import the wire: the code that replays passes
    them."""

    rows: Callable[[Heads, memoryview, int, int], tuple[npt.NDArray[np.int64] | None, Rows]]
    """Decodes blocks, their bytes, so many rows and dim to the positions sent, None for all, and their rows."""
    ids: Callable[[memoryview], Ids]
    """Decodes sorted ids."""


def _unknown(*_: object) -> Any:
    raise CorruptWrite("the write has compressed rows or ids: decode it with the decoders of ps.wire (WIRE)")


PLAIN = Wire(_unknown, _unknown)
"""Decodes no compression."""


class Packer:
    """Collects the bytes of a write."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def numbers(self, form: str, *values: int) -> None:
        """Adds numbers, each of a type by a letter of `struct`."""
        self.pieces.append(struct.pack(f"<{form}", *values))

    def digest(self, digest: int) -> None:
        """Adds 128 bits."""
        self.pieces.append(digest.to_bytes(16, "little"))

    def text(self, text: str) -> None:
        """Adds a short text."""
        data = text.encode()
        self.pieces.append(struct.pack("<H", len(data)) + data)

    def array(self, array: npt.NDArray[Any], dtype: str) -> None:
        """Adds an array of any shape, as `dtype`; its length counts items. It is not copied where it has that type."""
        flat = np.ascontiguousarray(array, dtype).reshape(-1)
        self.numbers("Q", len(flat))
        self.raw(flat.view(np.uint8).data)

    def raw(self, data: Piece) -> None:
        """Adds bytes as they are."""
        if len(data):
            self.pieces.append(data)

    def rows(self, blocks: Sequence[Rows]) -> None:
        """Adds rows of some blocks, without their number."""
        for block_ND in blocks:
            self.raw(np.ascontiguousarray(block_ND, "<f4").reshape(-1).view(np.uint8).data)

    def ids(self, ids_N: Ids, packed: bytes | None) -> None:
        """Adds ids, compressed where they came so."""
        self.numbers("B", int(packed is not None))
        self.array(ids_N, "<i8") if packed is None else self.array(np.frombuffer(packed, np.uint8), "u1")


class Unpacker:
    """Reads the bytes of a write from front to end."""

    def __init__(self, data: Piece, wire: Wire = PLAIN) -> None:
        self._data = memoryview(data).cast("B")
        self._at = 0
        self.wire = wire

    def numbers(self, form: str) -> tuple[int, ...]:
        """Reads numbers, each of a type by a letter of `struct`."""
        layout = struct.Struct(f"<{form}")
        return layout.unpack(self.raw(layout.size))

    def number(self, form: str) -> int:
        """Reads one number."""
        return self.numbers(form)[0]

    def digest(self) -> int:
        """Reads 128 bits."""
        return int.from_bytes(self.raw(16), "little")

    def text(self) -> str:
        """Reads a short text."""
        try:
            return str(self.raw(self.number("H")), "utf-8")
        except UnicodeDecodeError as error:
            raise CorruptWrite(f"a write has a text that is not UTF-8 at byte {self._at}: {error}") from None

    def array(self, dtype: str) -> npt.NDArray[Any]:
        """Reads a flat array, read-only; a view of the bytes where they are aligned."""
        kind = np.dtype(dtype)
        data = self.raw(self.number("Q") * kind.itemsize)
        return np.require(np.frombuffer(data, kind), kind.newbyteorder("="), "A")

    def raw(self, n: int) -> memoryview:
        """Reads n bytes. Raises CorruptWrite where there are fewer."""
        if n > len(self._data) - self._at:
            raise CorruptWrite(
                f"a write of {len(self._data):,} bytes ends too early: byte {self._at:,} asks for {n:,} more"
            )
        self._at += n
        return self._data[self._at - n : self._at]

    def ids(self) -> tuple[Ids, bytes | None]:
        """Reads ids, and the bytes that they were compressed to."""
        form = self.number("B")
        if form > 1:
            raise CorruptWrite(f"a write has ids of form {form}: this version knows 0 and 1")
        if not form:
            return self.array("<i8"), None
        packed = self.array("u1").tobytes()
        return self.wire.ids(memoryview(packed)), packed

    def end(self) -> None:
        """Raises CorruptWrite unless all was read."""
        if self._at != len(self._data):
            raise CorruptWrite(f"a write of {len(self._data):,} bytes has {len(self._data) - self._at:,} too many")
