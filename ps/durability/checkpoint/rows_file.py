"""Files of rows: blocks, one after the other. Numbers are little-endian.

    rows  = block*
    block = "psRB" crc(u32) table(u32) n(u32) width(u32) 0(u32)
            ids(n i64) scores(n f32) stamps(n u32) marks(n u16) pad rows(n * width bytes) pad

`table` is its number among the part's tables, `width` the bytes of a row, `crc` the CRC-32C of all that follows it in
the block. A pad is zeros up to a multiple of 8. A file may be read from any block on; where those of a table are,
part.json says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from ps.durability.checkpoint.reading import Reading
from ps.kernels.ranking.score import Marks
from ps.runtime.files import RawBytes
from ps.storage.tier import Records

BLOCK_BYTES = 2 << 20
"""A block has at most so many bytes, or one row."""
WINDOW_BYTES = 8 << 20
"""How many bytes are read at a time."""
MOST_WIDTH = 64 << 20
"""More bytes than any row has."""

_HEAD = struct.Struct("<4sIIIII")
_MAGIC = b"psRB"
_CRC, _TOLD = struct.Struct("<I"), struct.Struct("<IIII")
_COLUMNS = (np.int64, np.float32, np.uint32, np.uint16)
_CHECKED_FROM = 8
_ROW = 18
"""Bytes of a row beside its own."""

T = TypeVar("T")


class Block(NamedTuple):
    """Some rows of one table."""

    records: Records
    marks_N: Marks


def rows_in_block(width: int) -> int:
    """Returns how many rows of so many bytes a block has."""
    return max((BLOCK_BYTES - _HEAD.size - 16) // (width + _ROW), 1)


def block_bytes(n: int, width: int) -> int:
    """Returns the bytes of a block."""
    return _HEAD.size + _padded(_ROW * n) + _padded(n * width)


def pack_block(table: int, records: Records, marks_N: Marks) -> list[RawBytes]:
    """Returns the bytes of a block; no array is copied that lies in one piece."""
    n, width = records.rows_NB.shape
    arrays = (records.ids_N, records.scores_N, records.stamps_N, marks_N)
    columns = [_bytes(np.asarray(array, kind)) for array, kind in zip(arrays, _COLUMNS, strict=True)]
    pieces: list[RawBytes] = [*columns, bytes(-_ROW * n % 8), _bytes(records.rows_NB), bytes(-n * width % 8)]
    told = _TOLD.pack(table, n, width, 0)
    crc = crc32c(told)
    for piece in pieces:
        crc = crc32c(piece, crc)
    return [_MAGIC + _CRC.pack(crc) + told, *pieces]


def blocks_of(file: Reading, table: int) -> Iterator[Block]:
    """Yields the blocks, which must be of that table, while another thread reads and checks the next ones. Raises
    CheckpointCorrupt and DiskError."""
    for some in ahead(_checked(file, table)):
        yield from some


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yields the items; another thread gets the next one meanwhile."""
    each, end = iter(items), object()
    with ThreadPoolExecutor(1, "ps-checkpoint") as thread:
        waiting = thread.submit(next, each, end)
        while (item := waiting.result()) is not end:
            waiting = thread.submit(next, each, end)
            yield item  # type: ignore[misc]  # the end is not yielded


def _checked(file: Reading, table: int) -> Iterator[list[Block]]:
    start, tail = file.at, np.empty(0, np.uint8)
    while file.left:
        data = np.empty(len(tail) + min(file.left, WINDOW_BYTES), np.uint8)
        data[: len(tail)] = tail
        file.into(data[len(tail) :].data)
        blocks, used = [], 0
        while nbytes := _next(file, start + used, data[used:]):
            blocks.append(_block(file, start + used, data[used : used + nbytes], table))
            used += nbytes
        start, tail = start + used, data[used:]
        yield blocks
    if len(tail):
        raise file.damaged(start, "half a block is here")


def _next(file: Reading, at: int, data: npt.NDArray[np.uint8]) -> int:
    """Returns the bytes of the block that the data begins with; 0 where more must be read."""
    if len(data) < _HEAD.size:
        return 0
    magic, _, _, n, width, _ = _HEAD.unpack_from(data.data)
    if magic != _MAGIC or not 0 < n <= rows_in_block(width) or width > MOST_WIDTH:
        raise file.damaged(at, "a block should begin here, and does not")
    nbytes = block_bytes(n, width)
    return nbytes if nbytes <= len(data) else 0


def _block(file: Reading, at: int, data: npt.NDArray[np.uint8], table: int) -> Block:
    _, crc, number, n, width, _ = _HEAD.unpack_from(data.data)
    if crc32c(data[_CHECKED_FROM:].data) != crc:
        raise file.damaged(at, f"a block of {len(data):,} bytes is not what was written")
    if number != table:
        raise file.damaged(at, f"a block of table number {number} is where number {table} should be")
    ids_N, scores_N, stamps_N, marks_N, rows_NB = _views(data, n, width)
    return Block(Records(ids_N, rows_NB, scores_N, stamps_N), marks_N)


def _views(
    data: npt.NDArray[np.uint8], n: int, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.uint32], Marks, npt.NDArray[np.uint8]]:
    at, found = _HEAD.size, []
    for kind in _COLUMNS:
        end = at + n * np.dtype(kind).itemsize
        found.append(data[at:end].view(kind))
        at = end
    rows = _HEAD.size + _padded(_ROW * n)
    return (*found, data[rows : rows + n * width].reshape(n, width))  # type: ignore[return-value]


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _padded(n: int) -> int:
    return n + -n % 8
