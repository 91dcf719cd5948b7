"""A copy of a shard's RocksDB: made beside the database by hard links, and read by whoever wants its rows.

    <path>/copy/        the files of a checkpoint that is being taken, removed when they have been given on

RocksDB's files never change once they are written, so links to them are a copy of the moment at which they were made.
What was in the write buffers is flushed for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rocksdict import AccessType, Cache, Checkpoint, Rdict

from ps.config import PARTITIONS
from ps.errors import CorruptRow
from ps.storage.disk.codec import decode, ids_of
from ps.storage.disk.errors import translated
from ps.storage.disk.family import Family
from ps.storage.disk.options import database_options
from ps.storage.tier import Records

FOLDER = "copy"
TABLE = "table "
"""Before a table's name in that of its column family: "default" is RocksDB's own."""
READ_CACHE_BYTES = 8 << 20
READ_PARTITIONS = PARTITIONS // 64
"""How many partitions are read at once."""
ANY_LENGTH = range(1, 1 << 30)
"""Bytes of a row of a table whose configuration nobody knows here: its checksum tells whether it is sound."""


class Known(NamedTuple):
    """What need not be found out when a database is opened again."""

    rows: Mapping[str, int]
    """How many rows each table has."""
    undropped: Mapping[str, int]
    """How many families of that name could not be dropped before this one was made."""

    def to_json(self) -> str:
        """Returns it as text."""
        return json.dumps({"rows": dict(self.rows), "undropped": dict(self.undropped)})

    @staticmethod
    def from_json(text: str) -> Known:
        """Returns what `to_json` was asked of."""
        return Known(**json.loads(text))

    def family(self, table: str) -> str:
        """Returns the name of a table's column family."""
        before = self.undropped.get(table, 0)
        return f"{TABLE}{table}" + (f" {before}" if before else "")


NOTHING = Known({}, {})


def make(database: Rdict, path: Path) -> Path:
    """Makes a copy of the database below the path and returns its folder, which must not exist. Raises DiskError and
    DiskFull."""
    folder = path / FOLDER
    with translated(path):
        Checkpoint(database).create_checkpoint(str(folder))
    return folder


def remove(path: Path) -> None:
    """Removes the copy, or what there is of one; none is left out."""
    shutil.rmtree(path / FOLDER, ignore_errors=True)
    shutil.rmtree(path / f"{FOLDER}.tmp", ignore_errors=True)  # as RocksDB calls it until it is whole


@contextmanager
def reading(folder: Path, known: Known) -> Iterator[Mapping[str, Iterator[Records]]]:
    """Opens a copy to read it, and yields the rows of each table, in the order of their keys, some MiB at a time. There
    may be rows among them that cuts have dropped, or that are newer in RAM. Raises DiskError, and CorruptRow, which has
    the sound rows of those partitions, where a row cannot be read."""
    options = database_options(Cache(READ_CACHE_BYTES), READ_CACHE_BYTES, 1, False)
    with translated(folder):
        names = Rdict.list_cf(str(folder), options)
        database = Rdict(str(folder), options, dict.fromkeys(names, options), AccessType.read_only())
    try:
        yield {name: _rows(name, folder, database, known.family(name)) for name in known.rows}
    finally:
        with translated(folder):
            database.close()


def _rows(table: str, folder: Path, database: Rdict, name: str) -> Iterator[Records]:
    with translated(folder):
        rows = database.get_column_family(name)
        family = Family(table, folder, rows, database.get_column_family_handle(name))
    try:
        for first in range(0, PARTITIONS, READ_PARTITIONS):
            reasons: list[str] = []
            pairs = list(family.pairs(reasons, first, first + READ_PARTITIONS))
            found = decode(ids_of([key for key, _ in pairs]), [value for _, value in pairs], ANY_LENGTH)
            if reasons or len(found.corrupt_N):
                raise CorruptRow(
                    f"table {table!r}: rows in {folder} are not what was written there: "
                    f"{(reasons + found.reasons)[0]}; take an older checkpoint, or remove them",
                    found.corrupt_N.tolist(),
                    found.found,
                )
            yield from found.found
    finally:
        family.close()
