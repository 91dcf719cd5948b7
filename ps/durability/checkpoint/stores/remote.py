"""Files under a URL that fsspec has a driver for: object stores, HDFS, memory. fsspec is imported when one is used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ps.errors import ConfigError
from ps.runtime.files import Files, RawBytes

_PART_BYTES = 16 << 20
"""How many bytes a driver sends at a time, if it asks."""


def open_remote(url: str, files: Files) -> RemoteStore:
    """Returns the files under a URL. Raises ConfigError where there is no driver for it."""
    import fsspec  # type: ignore[import-untyped]

    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ConfigError(
            f"{url} needs a package that is not installed here: {error}. Every host of the service needs it"
        ) from error
    except ValueError as error:
        schemes = ", ".join(sorted(fsspec.available_protocols()))
        raise ConfigError(f"{url}: {error}. Give a path, or the URL of one of these: {schemes}") from error
    return RemoteStore(url.rstrip("/"), str(root).rstrip("/"), system, files)


class RemoteStore:
    """`FileStore` of an fsspec file system."""

    def __init__(self, url: str, root: str, system: Any, files: Files) -> None:
        self.url, self.files, self._root, self._system = url, files, root, system

    def where(self, name: str) -> str:
        """See `FileStore`."""
        return f"{self.url}/{name}"

    def create(self, name: str, fresh: bool = False) -> RemoteStream:
        """See `FileStore`."""
        path = self._path(name)
        if fresh and self._system.exists(path):
            raise FileExistsError(path)
        with suppress(NotImplementedError):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        return RemoteStream(self._system.open(path, "wb", block_size=_PART_BYTES))

    def put(self, name: str, data: bytes) -> None:
        """See `FileStore`: one call of the store."""
        path = self._path(name)
        with suppress(NotImplementedError):
            self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._system.pipe_file(path, data)

    def size(self, name: str) -> int:
        """See `FileStore`."""
        self._system.invalidate_cache()
        return int(self._system.info(self._path(name))["size"])

    def read_into(self, name: str, start: int, buffer: memoryview) -> int:
        """See `FileStore`."""
        if not len(buffer):
            return 0
        data = self._system.cat_file(self._path(name), start=start, end=start + len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def names(self, folder: str) -> list[str]:
        """See `FileStore`."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._path(folder), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted({each.rstrip("/").rpartition("/")[2] for each in found})

    def remove(self, name: str) -> None:
        """See `FileStore`."""
        self._system.invalidate_cache()
        with suppress(FileNotFoundError):
            self._system.rm(self._path(name), recursive=True)

    def sync(self, folder: str) -> None:
        """Does nothing: what is written is durable."""

    def is_same(self, path: Path, name: str) -> bool:
        """Returns False: nobody knows without reading."""
        return False

    def link_in(self, path: Path, name: str) -> bool:
        """Returns False: a file is sent."""
        return False

    def link(self, name: str, to: str) -> bool:
        """Returns False: there are no links."""
        return False

    def link_out(self, name: str, path: Path) -> bool:
        """Returns False: a file is fetched."""
        return False

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


class RemoteStream:
    """`Stream` to a file of a store."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """See `Stream`."""
        for piece in pieces:
            self._file.write(piece)

    def finish(self) -> None:
        """See `Stream`."""
        file, self._file = self._file, None
        file.close()

    def abandon(self) -> None:
        """See `Stream`. What was not sent yet is forgotten, if the driver can do that."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(Exception):  # each driver has its own
                file.discard()
