"""One column family of the shard's RocksDB: the keys and values of one table, and when it may be closed.

Threads: any may read and write at the same time; RocksDB sees to it. It works without the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rocksdict import ColumnFamily, Rdict, RdictIter, ReadOptions, WriteBatch

from ps.errors import TableNotFound
from ps.storage.disk.codec import PARTITIONS, UNREADABLE
from ps.storage.disk.errors import disk_error, is_corruption, translated
from ps.storage.disk.options import write_options

READAHEAD_BYTES = 2 << 20


class Family:
    """Values by key. Calls raise TableNotFound once it is closed, and DiskError; those that write DiskFull too."""

    def __init__(self, table: str, path: Path, rows: Rdict, family: ColumnFamily) -> None:
        """`path`: the directory of the shard's disk, for messages. `family`: it holds the database open."""
        self.path = path
        self._table = table
        self._rows = rows
        self._family: ColumnFamily | None = family
        self._write_options = write_options()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._calls = 0  # that are in RocksDB now

    def get(self, keys: list[bytes], reasons: list[str]) -> list[bytes | None]:
        """Returns the value of each key, None where there is none, and UNREADABLE, with the reason noted, where it
        cannot be read: that fails a call for a whole block, so keys are then asked for half by half. Raises
        DiskError."""
        try:
            with self._in_use():
                values: list[bytes | None] = self._rows.get(keys)  # type: ignore[arg-type,assignment]  # of the stub
            return values
        except TableNotFound:
            raise
        except Exception as error:
            if not is_corruption(error):
                raise disk_error(self.path, error) from error
            if len(keys) == 1:
                reasons.append(str(error))
                return [UNREADABLE]
        half = len(keys) // 2
        return self.get(keys[:half], reasons) + self.get(keys[half:], reasons)

    def put(self, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        """Sets values, also over older ones: all of them, or it raises and has changed nothing."""
        batch = self._batch()
        deque(map(batch.put, keys, values), maxlen=0)
        self._apply(batch)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Removes keys: all of them, or it raises and has changed nothing."""
        batch = self._batch()
        deque(map(batch.delete, keys), maxlen=0)
        self._apply(batch)

    def pairs(self, reasons: list[str], first: int, end: int) -> Iterator[tuple[bytes, bytes]]:
        """Yields (key, value) of partitions [first, end), in order, as they are now. After a block that cannot be read
        it notes the reason and goes on with the next partition."""
        return self._walk(RdictIter.value, reasons, first, end)

    def count(self) -> int:
        """Counts the keys that can be reached: about 2 seconds for 10 million."""
        return sum(1 for _ in self._walk(_no_value, []))

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes of RAM by purpose."""
        with translated(self.path):
            return {
                "memtables": self._rows.property_int_value("rocksdb.cur-size-all-mem-tables") or 0,
                "table_readers": self._rows.property_int_value("rocksdb.estimate-table-readers-mem") or 0,
            }

    def flush(self) -> None:
        """Writes the write buffers to disk, unless it is closed. Raises DiskFull and DiskError."""
        if self._family is not None:
            with translated(self.path):
                self._rows.flush()

    def close(self) -> None:
        """Waits for the calls under way, writes the write buffers to disk and lets go of the column family. May come
        again. Raises DiskFull and DiskError; it is closed then too, and what was in the buffers is gone."""
        if self._family is not None:
            with self._lock:
                self._family = None  # who holds one holds the database open
                self._idle.wait_for(lambda: not self._calls)
            with translated(self.path):
                self._rows.close()

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """Around calls of RocksDB: the table is not closed before they have ended. Raises TableNotFound afterwards."""
        with self._lock:
            if self._family is None:
                raise TableNotFound(f"table {self._table!r} is closed: it was dropped, or its shard has stopped")
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
        with translated(self.path), self._in_use():
            self._rows.write(batch, self._write_options)

    def _walk(
        self, value: Callable[[RdictIter], bytes], reasons: list[str], first: int = 0, end: int = PARTITIONS
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yields what `pairs` does, with what `value` reads in place of each value."""
        options = ReadOptions()
        options.set_readahead_size(READAHEAD_BYTES)
        options.fill_cache(False)  # type: ignore[call-arg]  # of the stub. What is read once must not drive the others out
        with translated(self.path), self._in_use():
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
                    raise disk_error(self.path, error) from error
                reasons.append(str(error))
            partition = max(partition, int.from_bytes(key[:2], "big")) + 1


def _no_value(_: RdictIter) -> bytes:
    return b""
