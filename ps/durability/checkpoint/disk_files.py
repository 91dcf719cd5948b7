"""RocksDB's files in a part: linked where that can be done, else copied, and not again where the base has the same.

RocksDB never changes a table file (.sst, .blob) that it has written, and gives each a number of its own; so a link is a
copy that takes no room. The others are small, and are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from ps.durability.checkpoint.behind import Written
from ps.durability.checkpoint.manifest import Part, StoredFile, folder_of, path_of
from ps.durability.checkpoint.reading import Reading
from ps.durability.checkpoint.stores.store import COPY_BYTES, FileStore, translated
from ps.errors import DiskError

DISK = "disk"
_FIXED = (".sst", ".blob")


class DiskFiles:
    """Takes the files of one part."""

    def __init__(self, store: FileStore, name: str, shard: int, base: tuple[str, Part] | None) -> None:
        self._store, self._shard, self._base = store, shard, base
        self._folder = folder_of(name, shard)
        self._of_base = {} if base is None else {file.name: file for file in base[1].files}

    def take(self, folder: Path) -> list[StoredFile]:
        """Returns what has become of the files in a folder of this host. What it raises is for `translated`."""
        taken = [self._take(folder / name, f"{DISK}/{name}") for name in self._store.files.names(folder)]
        if taken and any(file.at is None for file in taken):
            self._store.sync(f"{self._folder}/{DISK}")
        return taken

    def _take(self, path: Path, name: str) -> StoredFile:
        nbytes = self._store.files.size(path)
        if not name.endswith(_FIXED):
            return self._copied(path, name)
        had = self._of_base.get(name)
        if had is not None and had.nbytes == nbytes and self._base is not None:
            where = path_of(self._base[0], self._shard, had)
            if self._store.is_same(path, where) or self._crc(path) == had.crc32c:
                if self._store.link(where, f"{self._folder}/{name}"):
                    return StoredFile(name, nbytes, had.crc32c, shared=True)
                return StoredFile(name, nbytes, had.crc32c, at=had.at or self._base[0])
        if self._store.link_in(path, f"{self._folder}/{name}"):
            return StoredFile(name, nbytes, self._crc(path))
        return self._copied(path, name)

    def _copied(self, path: Path, name: str) -> StoredFile:
        file = Written(self._store, f"{self._folder}/{name}")
        try:
            for piece in self._pieces(path):
                file.write([piece.data])
            file.finish()
        except BaseException:
            file.abandon()
            raise
        return StoredFile(name, file.nbytes, file.crc)

    def _crc(self, path: Path) -> int:
        crc = 0
        for piece in self._pieces(path):
            crc = crc32c(piece.data, crc)
        return crc

    def _pieces(self, path: Path) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields the bytes of a file of this host, in one buffer."""
        files, at = self._store.files, 0
        buffer = np.empty(min(max(files.size(path), 1), COPY_BYTES), np.uint8)
        while n := files.read_into(path, at, buffer.data):
            yield buffer[:n]
            at += n


def put_out(store: FileStore, name: str, part: Part, folder: Path) -> bool:
    """Fills an empty folder of this host with RocksDB's files; returns False where there are none. Raises
    CheckpointCorrupt, DiskError and DiskFull."""
    files = [file for file in part.files if file.name.startswith(f"{DISK}/")]
    for file in files:
        path = path_of(name, part.shard, file)
        reading = Reading(store, path, file.nbytes)  # it is there, with all its bytes
        to = folder / file.name.removeprefix(f"{DISK}/")
        try:
            with translated(store.url):
                linked = file.name.endswith(_FIXED) and store.link_out(path, to)
                if not linked:
                    _fetch(store, reading, file, to)
        except FileNotFoundError as error:
            raise DiskError(f"{to} cannot be written: {error}") from error
    if files:
        with translated(str(folder)):
            store.files.sync_folder(folder)
    return bool(files)


def _fetch(store: FileStore, reading: Reading, file: StoredFile, to: Path) -> None:
    out, crc = store.files.create(to), 0
    try:
        while reading.left:
            data = reading.array(np.dtype(np.uint8), min(reading.left, COPY_BYTES)).data
            crc = crc32c(data, crc)
            out.write([data])
        out.sync()
    finally:
        out.close()
    if crc != file.crc32c:
        raise reading.damaged(0, f"its {file.nbytes:,} bytes are not those that were written")
