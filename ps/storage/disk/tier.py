"""The rows of one table on disk: a column family of the shard's RocksDB, read and written in batches.

Owns the number of rows and counters. RocksDB is called by `ps.storage.disk.family`; files, cache and threads belong to
`ps.storage.disk.database`, the form of keys and values to `ps.kernels.rows.records`.

Threads: any may read, write and discard at the same time; a lock keeps the counts. A row that one thread writes is read
by another as it was before or as it is after. Calls for one id that count rows (`write`, `discard`) come from one
thread at a time.

A row of a batch costs about 2 µs, most of it in RocksDB, the rest for making an object of its bytes. RocksDB works
without the interpreter's lock, so the threads of the pool share the pieces of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from ps.arrays import Ids
from ps.errors import CorruptRow
from ps.kernels.rows.records import HEADER_BYTES
from ps.storage.disk.codec import Decoded, decode, encode, ids_of, key_order, keys_of, present
from ps.storage.disk.family import Family
from ps.storage.tier import Records, Traffic, by_length

PIECE_ROWS = 2048
"""Rows that a thread reads at once: many enough to fill a batch get, few enough that threads take turns at RocksDB and
at making objects."""

Result = TypeVar("Result")


class DiskTier:
    """Rows of one table by id, each of one of a few lengths."""

    def __init__(
        self,
        name: str,
        row_bytes: Sequence[int],
        family: Family,
        pool: ThreadPoolExecutor,
        piece_rows: int = PIECE_ROWS,
        rows: int | None = None,
    ) -> None:
        """`piece_rows`: that a thread reads at once. `rows`: how many there are; None: they are counted, which takes
        about 2 seconds for 10 million."""
        self.name = name
        self.traffic = Traffic()
        self.read_errors = 0
        self._row_bytes = frozenset(row_bytes)
        self.family = family
        self._pool = pool
        self._piece_rows = piece_rows
        self._lock = threading.Lock()
        self._len = family.count() if rows is None else rows

    def __len__(self) -> int:
        return self._len

    def read(self, ids_N: Ids, check: Callable[[], None] = lambda: None) -> list[Records]:
        """Returns the rows of those ids that are here, in the order of their keys; one element for each length that
        occurs.

        Raises CorruptRow, which has the sound rows and the ids of the others, DiskError, and the errors of `check`,
        which is called before each piece of some thousand rows.
        """

        def read_piece(ids_N: Ids) -> Decoded:
            check()
            return self._read_piece(ids_N)

        pieces = self._by_piece(read_piece, ids_N)
        found = by_length(records for piece in pieces for records in piece.found)
        corrupt_N = np.concatenate([piece.corrupt_N for piece in pieces]) if pieces else ids_N
        with self._lock:
            self.traffic.rows_read += sum(map(len, found))
            self.traffic.bytes_read += sum(len(records) * _value_bytes(records) for records in found)
        if len(corrupt_N):
            raise self._corrupt(corrupt_N, [reason for piece in pieces for reason in piece.reasons], found)
        return found

    def write(self, records: Records, held: int | None = None) -> None:
        """Takes rows in, also over older ones of the same id: all of them, or it raises and has changed nothing.

        `held`: how many of the ids have a row here already. Looking it up costs as much as reading them, so say it
        where it is known. The rows go as one atomic batch, of which three copies are in memory meanwhile: give about
        10 MB at a time. Reads see them at once; on disk they are when RocksDB flushes its write buffers.

        Raises DiskFull and DiskError.
        """
        assert records.rows_NB.shape[1] in self._row_bytes, "write was given rows of a length that the table has not"
        if len(records):
            held = self.count_held(records.ids_N) if held is None else held
            self.family.put(*encode(records))
            with self._lock:
                self._len += len(records) - held
                self.traffic.rows_written += len(records)
                self.traffic.bytes_written += len(records) * _value_bytes(records)

    def discard(self, ids_N: Ids, held: int | None = None) -> None:
        """Drops rows; ids without one are left out. `held` as for `write`. Raises DiskFull and DiskError."""
        held = self.count_held(ids_N) if held is None else held
        if held:
            self.family.delete(keys_of(ids_N[key_order(ids_N)]))
            with self._lock:
                self._len -= held

    def partitions(self, first: int, end: int) -> list[Records]:
        """Returns the rows of partitions [first, end), in the form that `read` returns."""
        reasons: list[str] = []
        pairs = list(self.family.pairs(reasons, first, end))
        piece = decode(ids_of([key for key, _ in pairs]), [value for _, value in pairs], self._row_bytes)
        if reasons or piece.reasons:
            raise self._corrupt(piece.corrupt_N, reasons + piece.reasons, piece.found)
        return piece.found

    def count_held(self, ids_N: Ids) -> int:
        """Returns how many of the ids have a row here. One that cannot be read counts until it is overwritten or
        dropped."""

        def count(piece_N: Ids) -> int:
            return sum(value is not None for value in self.family.get(keys_of(piece_N), []))

        return sum(self._by_piece(count, ids_N))

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes of RAM by purpose, of this table alone; `Disk` has the cache that all tables share."""
        return self.family.memory_usage()

    def flush(self) -> None:
        """Writes the write buffers to disk, unless it is closed. Raises DiskFull and DiskError."""
        self.family.flush()

    def close(self) -> None:
        """Writes the write buffers to disk and lets go of the column family. May come again, nothing else after it.

        Raises DiskFull and DiskError; it is closed then too, and the rows that were in the buffers are gone.
        """
        self.family.close()

    def _by_piece(self, function: Callable[[Ids], Result], ids_N: Ids) -> list[Result]:
        """Calls function(ids) for pieces of the ids, in the order of the keys, on the pool's threads."""
        ids_N = ids_N[key_order(ids_N)]
        size = self._piece_rows
        if len(ids_N) <= size:
            return [function(ids_N)] if len(ids_N) else []
        pieces = [ids_N[start : start + size] for start in range(0, len(ids_N), size)]
        return list(self._pool.map(function, pieces))

    def _read_piece(self, ids_N: Ids) -> Decoded:
        reasons: list[str] = []
        values = self.family.get(keys_of(ids_N), reasons)
        piece = decode(*present(ids_N, values), self._row_bytes)
        return piece._replace(reasons=reasons + piece.reasons)

    def _corrupt(self, ids_N: Ids, reasons: Sequence[str], sound: Sequence[Records] = ()) -> CorruptRow:
        with self._lock:
            self.read_errors += max(1, len(ids_N))
        which = f"the row of id {ids_N[0]}" if len(ids_N) else "a block of rows"
        others = f" (and those of {len(ids_N) - 1:,} others of this batch)" if len(ids_N) > 1 else ""
        return CorruptRow(
            f"table {self.name!r}: {which}{others} on disk is not what was written there: {reasons[0]}. The disk below "
            f"{self.family.path} may be failing; those rows are lost, the others are well; "
            "`client.remove` drops them, and they start again",
            ids_N.tolist(),
            sound,
        )


def _value_bytes(records: Records) -> int:
    return HEADER_BYTES + int(records.rows_NB.shape[1])
