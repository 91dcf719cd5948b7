"""The rows of one table on disk: a column family of the shard's RocksDB, read and written in batches.

Owns the keys and values of its column family, the number of rows in it, and counters. Files, cache and threads belong
to `ps.storage.disk.database`; the form of keys and values to `ps.kernels.rows.records`.

Threads: any may read, write and discard at the same time; RocksDB sees to it, and a lock keeps the counts. A row that
one thread writes is read by another as it was before or as it is after. Calls for one id that count rows (`write`,
`discard`) come from one thread at a time.

A row of a batch costs about 2 µs, most of it in RocksDB, the rest for making an object of its bytes. RocksDB works
without the interpreter's lock, so the threads of the pool share the pieces of a batch.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from rocksdict import ColumnFamily, Rdict, RdictIter, ReadOptions, WriteBatch

from ps.arrays import Ids
from ps.errors import CorruptRow, TableNotFound
from ps.kernels.rows.records import HEADER_BYTES
from ps.storage.disk.codec import (
    PARTITIONS,
    UNREADABLE,
    Decoded,
    decode,
    encode,
    ids_of,
    key_order,
    keys_of,
    present,
)
from ps.storage.disk.errors import disk_error, is_corruption, translated
from ps.storage.disk.options import write_options
from ps.storage.tier import Records, Traffic, by_length

PIECE_ROWS = 2048
"""Rows that a thread reads at once: many enough to fill a batch get, few enough that threads take turns at RocksDB and
at making objects."""
ITEMS_ROWS = 16_384
READAHEAD_BYTES = 2 << 20

Result = TypeVar("Result")


class DiskTier:
    """Rows of one table by id, each of one of a few lengths."""

    def __init__(
        self,
        name: str,
        row_bytes: Sequence[int],
        path: Path,
        rows: Rdict,
        family: ColumnFamily,
        pool: ThreadPoolExecutor,
        piece_rows: int = PIECE_ROWS,
    ) -> None:
        """`piece_rows`: that a thread reads at once. Counts the rows that are there: about 2 seconds for 10 million."""
        self.name = name
        self.traffic = Traffic()
        self.read_errors = 0
        self._row_bytes = frozenset(row_bytes)
        self._path = path
        self._rows = rows
        self._family: ColumnFamily | None = family
        self._pool = pool
        self._piece_rows = piece_rows
        self._write_options = write_options()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._calls = 0  # that are in RocksDB now
        self._len = sum(1 for _ in self._walk(_no_value, []))  # those that can be reached

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
            batch = self._batch()
            deque(map(batch.put, *encode(records)), maxlen=0)
            self._apply(batch)
            with self._lock:
                self._len += len(records) - held
                self.traffic.rows_written += len(records)
                self.traffic.bytes_written += len(records) * _value_bytes(records)

    def discard(self, ids_N: Ids, held: int | None = None) -> None:
        """Drops rows; ids without one are left out. `held` as for `write`. Raises DiskFull and DiskError."""
        held = self.count_held(ids_N) if held is None else held
        if held:
            batch = self._batch()
            deque(map(batch.delete, keys_of(ids_N[key_order(ids_N)])), maxlen=0)
            self._apply(batch)
            with self._lock:
                self._len -= held

    def items(self, batch_rows: int = ITEMS_ROWS) -> Iterator[Records]:
        """Yields all rows as they are when the first is asked for, by key; a batch has rows of one length, at most so
        many.

        What cannot be read or is not sound is left out, with the rest of its partition where RocksDB cannot say where
        the next row is; CorruptRow comes when all others have been given. Raises DiskError too.
        """
        corrupt = [np.empty(0, np.int64)]
        reasons: list[str] = []
        pairs = self._walk(RdictIter.value, reasons)
        while batch := list(islice(pairs, batch_rows)):
            piece = decode(ids_of([key for key, _ in batch]), [value for _, value in batch], self._row_bytes)
            yield from piece.found
            corrupt.append(piece.corrupt_N)
            reasons += piece.reasons
        if reasons:
            raise self._corrupt(np.concatenate(corrupt), reasons)

    def partitions(self, first: int, end: int) -> list[Records]:
        """Returns the rows of partitions [first, end), in the form that `read` returns."""
        reasons: list[str] = []
        pairs = list(self._walk(RdictIter.value, reasons, first, end))
        piece = decode(ids_of([key for key, _ in pairs]), [value for _, value in pairs], self._row_bytes)
        if reasons or piece.reasons:
            raise self._corrupt(piece.corrupt_N, reasons + piece.reasons, piece.found)
        return piece.found

    def ids(self, batch_rows: int = ITEMS_ROWS) -> Iterator[Ids]:
        """Yields all ids, as `items` yields rows; values are not read."""
        reasons: list[str] = []
        pairs = self._walk(_no_value, reasons)
        while batch := list(islice(pairs, batch_rows)):
            yield ids_of([key for key, _ in batch])
        if reasons:
            raise self._corrupt(np.empty(0, np.int64), reasons)

    def count_held(self, ids_N: Ids) -> int:
        """Returns how many of the ids have a row here. One that cannot be read counts until it is overwritten or
        dropped."""

        def count(piece_N: Ids) -> int:
            return sum(value is not None for value in self._get(keys_of(piece_N), []))

        return sum(self._by_piece(count, ids_N))

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes of RAM by purpose, of this table alone; `Disk` has the cache that all tables share."""
        with translated(self._path):
            return {
                "memtables": self._rows.property_int_value("rocksdb.cur-size-all-mem-tables") or 0,
                "table_readers": self._rows.property_int_value("rocksdb.estimate-table-readers-mem") or 0,
            }

    def flush(self) -> None:
        """Writes the write buffers to disk, unless it is closed. Raises DiskFull and DiskError."""
        if self._family is not None:
            with translated(self._path):
                self._rows.flush()

    def close(self) -> None:
        """Writes the write buffers to disk and lets go of the column family. May come again, nothing else after it.

        Raises DiskFull and DiskError; it is closed then too, and the rows that were in the buffers are gone.
        """
        if self._family is not None:
            with self._lock:
                self._family = None  # who holds one holds the database open
                self._idle.wait_for(lambda: not self._calls)
            with translated(self._path):
                self._rows.close()

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
        values = self._get(keys_of(ids_N), reasons)
        piece = decode(*present(ids_N, values), self._row_bytes)
        return piece._replace(reasons=reasons + piece.reasons)

    def _get(self, keys: list[bytes], reasons: list[str]) -> list[bytes | None]:
        """Returns the values of keys. A block that cannot be read fails the whole call; then each half is read by
        itself, down to single rows."""
        try:
            with self._in_use():
                values: list[bytes | None] = self._rows.get(keys)  # type: ignore[arg-type,assignment]  # of the stub
            return values
        except TableNotFound:
            raise
        except Exception as error:
            if not is_corruption(error):
                raise disk_error(self._path, error) from error
            if len(keys) == 1:
                reasons.append(str(error))
                return [UNREADABLE]
        half = len(keys) // 2
        return self._get(keys[:half], reasons) + self._get(keys[half:], reasons)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Guards calls of RocksDB: the table is not closed before they have ended. Raises TableNotFound afterwards."""
        with self._lock:
            if self._family is None:
                raise TableNotFound(f"table {self.name!r} is closed: it was dropped, or its shard has stopped")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                self._idle.notify_all()

    def _batch(self) -> WriteBatch:
        batch = WriteBatch(raw_mode=True)
        batch.set_default_column_family(self._family)  # else it goes to the database's default one, whoever writes it
        return batch

    def _apply(self, batch: WriteBatch) -> None:
        with translated(self._path), self._in_use():
            self._rows.write(batch, self._write_options)

    def _walk(
        self, value: Callable[[RdictIter], bytes], reasons: list[str], first: int = 0, end: int = PARTITIONS
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, value) of all rows of partitions [first, end), in order, as they are now. After a block that
        cannot be read it notes the reason and goes on with the next partition."""
        options = ReadOptions()
        options.set_readahead_size(READAHEAD_BYTES)
        options.fill_cache(False)  # type: ignore[call-arg]  # of the stub. What is read once must not drive the others out
        with translated(self._path), self._in_use():
            walk = self._rows.iter(options)
        partition, beyond = first, end.to_bytes(2, "big")
        while partition < end:
            walk.seek(partition.to_bytes(2, "big"))
            key = b""
            while walk.valid():
                key = walk.key()
                if key >= beyond:
                    return
                yield key, value(walk)
                walk.next()
            try:
                walk.status()  # an iterator that cannot read ends like one that is done
                break
            except Exception as error:
                if not is_corruption(error):
                    raise disk_error(self._path, error) from error
                reasons.append(str(error))
            partition = max(partition, int.from_bytes(key[:2], "big")) + 1

    def _corrupt(self, ids_N: Ids, reasons: Sequence[str], sound: Sequence[Records] = ()) -> CorruptRow:
        with self._lock:
            self.read_errors += max(1, len(ids_N))
        which = f"the row of id {ids_N[0]}" if len(ids_N) else "a block of rows"
        others = f" (and those of {len(ids_N) - 1:,} others of this batch)" if len(ids_N) > 1 else ""
        return CorruptRow(
            f"table {self.name!r}: {which}{others} on disk is not what was written there: {reasons[0]}. The disk below "
            f"{self._path} may be failing; those rows are lost, the others are well; "
            "`client.remove` drops them, and they start again",
            ids_N.tolist(),
            sound,
        )


def _value_bytes(records: Records) -> int:
    return HEADER_BYTES + int(records.rows_NB.shape[1])


def _no_value(_: RdictIter) -> bytes:
    return b""
