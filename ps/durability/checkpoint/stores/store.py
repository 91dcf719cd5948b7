"""Named files under one URL: a folder of this host, or whatever fsspec has a driver for.

Names are relative, with slashes. A file is written once, from its beginning to its end, and never changes afterwards.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from ps.errors import DiskError, DiskFull, PsError
from ps.runtime.files import Files, RawBytes, RealFiles

COPY_BYTES = 8 << 20
"""How many bytes are copied at a time."""


class Stream(Protocol):
    """A file that is being written."""

    def write(self, pieces: Sequence[RawBytes]) -> None:
        """Adds the pieces, one after the other."""

    def finish(self) -> None:
        """Ends the file: its bytes outlive a crash."""

    def abandon(self) -> None:
        """Gives up; what was written may be there or not. Raises nothing; may be called after `finish` too."""


class FileStore(Protocol):
    """Named files. What goes wrong is an OSError, or the driver's own error; `translated` is put around."""

    url: str
    files: Files
    """The files of this host."""

    def where(self, name: str) -> str:
        """Returns what to call a file in messages."""

    def create(self, name: str, fresh: bool = False) -> Stream:
        """Begins a file. `fresh`: raises FileExistsError where there is one, as far as the store can tell."""

    def put(self, name: str, data: bytes) -> None:
        """Writes a whole file, so that it is there with all its bytes or not at all, also over an older one."""

    def size(self, name: str) -> int:
        """Returns the bytes of a file; raises FileNotFoundError."""

    def read_into(self, name: str, start: int, buffer: memoryview) -> int:
        """Fills a buffer from byte `start` on; returns how many bytes there were."""

    def names(self, folder: str) -> list[str]:
        """Returns what is in a folder, sorted; nothing where there is no folder."""

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it; what is not there is left out."""

    def sync(self, folder: str) -> None:
        """Has the names in a folder outlive a crash."""

    def is_same(self, path: Path, name: str) -> bool:
        """Tells whether a file of this host is one that is here already, without reading it."""

    def link_in(self, path: Path, name: str) -> bool:
        """Gives a file of this host a name here, if that can be done without a copy; returns whether it was."""

    def link(self, name: str, to: str) -> bool:
        """Gives a file a second name, if that can be done without a copy; returns whether it was."""

    def link_out(self, name: str, path: Path) -> bool:
        """Gives a file a name on this host, if that can be done without a copy; returns whether it was."""


def store_of(url: str, files: Files | None = None) -> FileStore:
    """Returns the files under a URL, or under a path of this host. Raises ConfigError for a URL that cannot be used."""
    from ps.durability.checkpoint.stores.local import LocalStore
    from ps.durability.checkpoint.stores.remote import open_remote

    scheme, apart, rest = url.partition("://")
    if not apart or scheme == "file":
        path = Path(rest if apart else url).expanduser().absolute()
        return LocalStore(path, files or RealFiles())
    return open_remote(url, files or RealFiles())


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Around calls of a store: what they raise becomes a DiskFull or a DiskError. FileNotFoundError is let through."""
    try:
        yield
    except (PsError, FileNotFoundError):
        raise
    except OSError as error:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DiskError
        raise kind(f"checkpoints in {url} cannot be read or written: {error}") from error
    except Exception as error:  # each driver has its own
        raise DiskError(f"checkpoints in {url} cannot be read or written: {type(error).__name__}: {error}") from error
