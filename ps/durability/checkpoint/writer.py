"""Writes the part that one shard has in a checkpoint.

    shard-K/state          all but the rows                  grammar: `state_file`
    shard-K/rows-NNNN      the rows that were in RAM         grammar: `rows_file`
    shard-K/disk/...       RocksDB's files                   `disk_files`
    shard-K/part.json      what there is, with lengths and checksums          grammar: `manifest`

part.json is written last, when all others outlive a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ps.config import TableConfig
from ps.durability.checkpoint.behind import Behind, Written
from ps.durability.checkpoint.disk_files import DiskFiles
from ps.durability.checkpoint.manifest import PART, Extent, Part, PartTable, StoredFile, folder_of, part_bytes
from ps.durability.checkpoint.rows_file import block_bytes, pack_block, rows_in_block
from ps.durability.checkpoint.state_file import pack_state
from ps.durability.checkpoint.stores.store import FileStore, translated
from ps.errors import InvalidArgument
from ps.kept import KeptState, parted
from ps.kernels.ranking.score import Marks
from ps.storage.tier import Records, piece

FILE_BYTES = 256 << 20
"""A file of rows ends when it has so many bytes: as many are synced at once."""


class PartWriter:
    """Takes what a shard saves (a `ps.durability.state.Sink`) and writes it. Used by one thread at a time.

    What goes wrong in its own thread is raised by a later call. Raises DiskError and DiskFull. Whoever gets an error
    calls `abort`.
    """

    def __init__(self, store: FileStore, name: str, shard: int, base: tuple[str, Part] | None = None) -> None:
        """base: the checkpoint that has what has not changed since, and this shard's part of it."""
        self._store, self._name, self._shard, self._base = store, name, shard, base
        self._folder = folder_of(name, shard)
        self._behind = Behind()
        self._files: list[StoredFile] = []
        self._rows: Written | None = None
        self._rows_at = self._rows_file = 0
        self._numbers: dict[str, int] = {}
        self._tables: list[PartTable] = []
        self._extents: list[list[Extent]] = []
        self._version, self._workers = 0, dict[int, int]()
        with translated(store.url):
            store.remove(self._folder)  # what an earlier try has left

    def take_state(self, version: int, state: KeptState) -> None:
        """Takes all but the rows; once, first. Raises InvalidArgument where the shard does not know what was removed
        since the base."""
        self._version, self._workers = version, _sequences(state)
        tables = parted(parted(state).get("tables", {})).values()
        self._check_base(tables)
        self._tables = [_table(each) for each in tables]
        self._numbers = {table.name: number for number, table in enumerate(self._tables)}
        self._extents = [[] for _ in self._tables]
        self._behind.run(partial(self._write_state, state))

    def take_disk(self, folder: Path) -> None:
        """Takes RocksDB's files, which may go when this returns."""
        self._behind.wait()
        with translated(self._store.url):
            self._files += DiskFiles(self._store, self._name, self._shard, self._base).take(folder)

    def take_rows(self, table: str, records: Records, marks_N: Marks) -> None:
        """Takes some rows of a table, all of one length. Nobody changes them afterwards: they are written while this
        has returned."""
        step = rows_in_block(records.rows_NB.shape[1])
        for start in range(0, len(records), step):
            self._take_block(table, piece(records, start, start + step), marks_N[start : start + step])

    def finish(self) -> Part:
        """Has all that was taken outlive a crash, and then says that it is there: writes part.json, and returns what it
        says."""
        self._behind.run(self._end_rows)
        self._behind.wait()
        self._behind.close()
        tables = [
            replace(table, rows=tuple(extents)) for table, extents in zip(self._tables, self._extents, strict=True)
        ]
        base = None if self._base is None else self._base[0]
        part = Part(self._shard, self._version, base, tuple(self._files), self._workers, tuple(tables))
        with translated(self._store.url):
            self._store.sync(self._folder)
            self._store.put(f"{self._folder}/{PART}", part_bytes(part))
        return part

    def abort(self) -> None:
        """Gives up, and removes what was written, as far as that works."""
        self._behind.close()
        if self._rows is not None:
            self._rows.abandon()
        with translated(self._store.url):
            self._store.remove(self._folder)

    # on this thread

    def _check_base(self, tables: Iterable[Mapping[str, Any]]) -> None:
        since = {table["removed.since"] for table in tables if table["since"] is not None}
        if since - {None if self._base is None else self._base[1].version}:
            on = "nothing" if self._base is None else f"{self._base[0]}, version {self._base[1].version:,}"
            raise InvalidArgument(
                f"the part of shard {self._shard} builds on {on}, and the shard knows what was removed since version "
                f"{since}: let it build on the last checkpoint that it was told is kept, or on none"
            )

    def _take_block(self, table: str, records: Records, marks_N: Marks) -> None:
        nbytes = block_bytes(*records.rows_NB.shape)
        number = self._numbers[table]
        self._note(self._extents[number], nbytes)
        self._behind.run(partial(self._write_block, number, records, marks_N))
        if self._rows_at >= FILE_BYTES:
            self._behind.run(self._end_rows)
            self._rows_at, self._rows_file = 0, self._rows_file + 1

    def _note(self, extents: list[Extent], nbytes: int) -> None:
        start = self._rows_at
        self._rows_at += nbytes
        if extents and (extents[-1].file, extents[-1].end) == (self._rows_file, start):
            start = extents.pop().start
        extents.append(Extent(self._rows_file, start, self._rows_at))

    # on the thread behind

    def _write_state(self, state: KeptState) -> None:
        with translated(self._store.url):
            file = Written(self._store, f"{self._folder}/state")
            try:
                for data in pack_state(state):
                    file.write([data])
                file.finish()
            except BaseException:
                file.abandon()
                raise
        self._files.append(StoredFile("state", file.nbytes, file.crc))

    def _write_block(self, number: int, records: Records, marks_N: Marks) -> None:
        pieces = pack_block(number, records, marks_N)
        with translated(self._store.url):
            if self._rows is None:
                self._rows = Written(self._store, f"{self._folder}/{self._rows_name()}")
            self._rows.write(pieces)

    def _end_rows(self) -> None:
        rows = self._rows
        if rows is None:
            return
        with translated(self._store.url):
            rows.finish()
        self._files.append(StoredFile(self._rows_name(), rows.nbytes, rows.crc))
        self._rows = None

    def _rows_name(self) -> str:
        done = sum(file.name.startswith("rows-") for file in self._files)
        return f"rows-{done:04d}"


def _table(state: Mapping[str, Any]) -> PartTable:
    name = TableConfig.from_json(state["config"]).name
    return PartTable(name, state["born"], state["ranking.now"], state["ranking.per_tick"], state["since"] is None)


def _sequences(state: KeptState) -> dict[int, int]:
    """Returns the highest sequence of each worker that the ledger knows."""
    saved = parted(parted(state).get("ledger", {})).get("workers", {})
    found: dict[int, int] = {}
    at = 0
    columns = (saved[name].tolist() for name in ("ids", "forgot", "forgotten", "writes")) if saved else ()
    for worker, forgot, forgotten, n in zip(*columns, strict=True):
        known = saved["sequences"][at : at + n].tolist()
        at += n
        if known or forgot:
            found[worker] = max([*known, *([forgotten] if forgot else [])])
    return found
