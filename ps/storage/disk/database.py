"""The disk of a shard: one RocksDB, a column family for each table.

Owns the directory, RocksDB's memory and the threads that read. Rows: `ps.storage.disk.tier`; settings with their
reasons: `ps.storage.disk.options`.

    <path>/EMBEDDING_PS     the mark of a directory that we made, locked while it is open; only such a one is emptied
    <path>/rocksdb/         RocksDB's files
    <path>/copy/            a checkpoint that is being taken (`ps.storage.disk.copy`)

There is no log, so rows survive `close`, not the death of the process. A disk that is full refuses
writes with DiskFull and goes on reading; RocksDB holds what it had accepted in memory, looks every few seconds for room
and then takes writes again by itself.

Threads: any may use its tables. Opening and dropping them, and closing, is for one thread; it waits for
calls that others are in, and those that come later raise TableNotFound.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from rocksdict import Cache, Options, Rdict

from ps.errors import ConfigError, PsError
from ps.storage.budget.aside import DEFAULT_WRITE_BUFFER_BYTES
from ps.storage.disk import copy
from ps.storage.disk.copy import Known
from ps.storage.disk.errors import translated
from ps.storage.disk.family import Family
from ps.storage.disk.options import BLOCK_BYTES, database_options
from ps.storage.disk.tier import PIECE_ROWS, DiskTier

MARK = "EMBEDDING_PS"
FORMAT = b"embedding-ps disk, format 1\n"
_DEFAULT_FAMILY = "default"


class Disk:
    """Tables on disk. It takes `cache_bytes` + `write_buffer_bytes` of RAM, and a little more while writing."""

    def __init__(
        self,
        path: Path,
        cache_bytes: int,
        threads: int = 4,
        *,
        fresh: bool = True,
        write_buffer_bytes: int = DEFAULT_WRITE_BUFFER_BYTES,
        direct_reads: bool = False,
    ) -> None:
        """`fresh` empties the directory; else the tables of the last one that was closed in order can be opened again.

        Raises ConfigError for a directory that is not ours, is of another format or is in use; DiskError and DiskFull.
        """
        self.path = path
        self._cache = Cache(cache_bytes)
        self._options = database_options(self._cache, write_buffer_bytes, min(threads, 4), direct_reads)
        # RocksDB holds every block that a batch get has looked at until it is done: all threads' together should fit
        # into the cache, or memory beyond it would be needed.
        self._piece_rows = max(min(PIECE_ROWS, cache_bytes // (threads * BLOCK_BYTES)), 64)
        self._tables: dict[str, DiskTier] = {}
        self._bytes_seen = 0
        self._undropped: Counter[str] = Counter()
        self._rows_known: dict[str, int] = {}
        with ExitStack() as undo:
            undo.callback(os.close, _claim(path, fresh))
            copy.remove(path)  # of a process that was killed
            self._database = self._open(fresh)
            undo.callback(self._close_database)
            self._undo = undo.pop_all()
        self._pool = ThreadPoolExecutor(threads, "ps-disk")

    def table(self, name: str, row_bytes: Sequence[int]) -> DiskTier:
        """Returns the table of that name, created if there is none. row_bytes: the lengths that a row may have.

        Raises DiskError and DiskFull. May be called once for each name, until the table is dropped.
        """
        assert name not in self._tables, "this table is open"
        family = self._family(name)
        with translated(self.path):
            self._folder.mkdir(parents=True, exist_ok=True)  # what has lost it can begin again
            if family in self._families:
                rows = self._database.get_column_family(family)
            else:
                rows = self._database.create_column_family(family, self._options)
                self._families.add(family)
            handle = Family(name, self.path, rows, self._database.get_column_family_handle(family))
        rows_there = self._rows_known.pop(name, None)
        self._tables[name] = DiskTier(name, row_bytes, handle, self._pool, self._piece_rows, rows_there)
        return self._tables[name]

    def drop(self, name: str) -> None:
        """Deletes a table and its files; one that is not there is left out. Raises DiskError and DiskFull; its rows do
        not come back after that either: the binding has forgotten the family, and `table` makes it again or raises."""
        with suppress(OSError):  # what has lost its folder goes on
            self._folder.mkdir(parents=True, exist_ok=True)
        if name in self._tables:
            with suppress(PsError):  # of write buffers that nobody will need
                self._tables.pop(name).close()
        family = self._family(name)
        if family in self._families:
            self._families.remove(family)
            try:
                with translated(self.path):
                    self._database.drop_column_family(family)
            except PsError:
                self._undropped[name] += 1  # RocksDB may still have it: the next of that name is another one
                raise

    def flush(self) -> None:
        """Writes the write buffers of all tables to disk. Any thread. Raises DiskFull and DiskError."""
        for table in list(self._tables.values()):
            table.flush()

    def known(self) -> Known:
        """Returns what `refill` is to be told beside a copy that is made now."""
        return Known({name: len(table) for name, table in self._tables.items()}, dict(self._undropped))

    def copy(self) -> Path:
        """Makes a copy of the tables as they are, while nothing is written to them, and returns its folder, which is
        for `drop_copy` to remove. Raises DiskFull and DiskError."""
        return copy.make(self._database, self.path)

    def drop_copy(self) -> None:
        """Removes the copy, if there is one. Any thread."""
        copy.remove(self.path)

    def refill(self, fill: Callable[[Path], object], known: Known) -> None:
        """Puts a copy in the place of what is there. No table is open: `table` opens those of the copy, whose rows are
        not counted again. `fill` puts the files into an empty folder. What it raises is passed on, as are DiskFull and
        DiskError, and then there is an empty database."""
        assert not self._tables, "no table is open"
        self._close_database()
        try:
            with translated(self.path):
                shutil.rmtree(self._folder)
                self._folder.mkdir()
            fill(self._folder)
            self._undropped, self._rows_known = Counter(known.undropped), dict(known.rows)
            self._database = self._open(fresh=False)
            self._drop_all_but({known.family(name) for name in known.rows})
        except BaseException:
            self._undropped, self._rows_known = Counter(), {}
            self._database = self._open(fresh=True)
            raise

    def memory_usage(self) -> dict[str, int]:
        """Returns bytes of RAM by purpose; index and filters of the files are part of the block cache."""
        tables = [table.memory_usage() for table in self._tables.values()]
        return {
            "block_cache": self._cache.get_usage(),
            **{purpose: sum(table[purpose] for table in tables) for purpose in ("memtables", "table_readers")},
        }

    def bytes_on_disk(self) -> int:
        """Returns the bytes of RocksDB's files, also of those that wait to be deleted. If the process has no descriptor
        left to look with, it returns the last figure."""
        total = 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # compacted away meanwhile
                        total += entry.stat().st_size
            self._bytes_seen = total
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENOENT):
                raise
        return self._bytes_seen

    def close(self) -> None:
        """Writes what is in the write buffers and gives everything back, also where it raises DiskFull or DiskError:
        then rows are missing when the directory is opened again. May be called again."""
        tables, self._tables = list(self._tables.values()), {}
        with self._undo as finish:
            for table in tables:
                finish.callback(table.close)
            self._pool.shutdown()

    def _family(self, name: str) -> str:
        return Known({}, self._undropped).family(name)

    def _drop_all_but(self, families: set[str]) -> None:
        with translated(self.path):
            for family in self._families - families - {_DEFAULT_FAMILY}:  # of tables that could not be dropped
                self._database.drop_column_family(family)
        self._families &= families | {_DEFAULT_FAMILY}

    @property
    def _folder(self) -> Path:
        return self.path / "rocksdb"

    def _close_database(self) -> None:
        with translated(self.path):
            self._database.close()

    def _open(self, fresh: bool) -> Rdict:
        """Opens RocksDB, with all the column families that there are: it asks for that."""
        self._families = {_DEFAULT_FAMILY}
        with translated(self.path):
            if fresh and self._folder.exists():
                shutil.rmtree(self._folder)
            if (self._folder / "CURRENT").exists():
                self._families |= set(Rdict.list_cf(str(self._folder), Options(raw_mode=True)))
            return Rdict(str(self._folder), self._options, dict.fromkeys(self._families, self._options))


def _claim(path: Path, fresh: bool) -> int:
    """Returns the mark of a directory that is ours, or is empty and so becomes ours; it is open, and locked against
    others."""
    mark = path / MARK
    with translated(path):
        path.mkdir(parents=True, exist_ok=True)
        if not mark.exists() and any(path.iterdir()):
            raise ConfigError(
                f"{path} is not empty and was not made by embedding-ps (it has no file {MARK}): rows on disk need a "
                "directory of their own, which is emptied at the start; name another or an empty one"
            )
        descriptor = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock_and_check(descriptor, path, fresh)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _lock_and_check(mark: int, path: Path, fresh: bool) -> None:
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(f"{path} is in use by another shard: each needs a directory of its own") from error
    form = os.read(mark, 200)
    if not fresh and form not in (b"", FORMAT):
        raise ConfigError(f"{path} was written in another format ({form!r}, not {FORMAT!r}): start with a fresh one")
    if form != FORMAT:
        os.ftruncate(mark, 0)
        os.pwrite(mark, FORMAT, 0)
