"""Turns RocksDB's errors into errors of this project. The binding raises plain `Exception`, so only RocksDB's text
tells them apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ps.errors import DiskError, DiskFull, PsError

RETRY_FULL_S = 5.0
"""RocksDB looks every 5 seconds whether there is room again, and then goes on writing by itself."""


def is_corruption(error: Exception) -> bool:
    """Returns whether an error says that what was read is not what was written: a block's checksum, a truncated
    file."""
    return str(error).startswith("Corruption:")


def disk_error(path: Path, error: Exception) -> PsError:
    """Returns DiskFull or DiskError, with the path and RocksDB's text."""
    text = str(error)
    if "No space left on device" in text or "Disk quota exceeded" in text or "File too large" in text:
        return DiskFull(
            f"no room on the disk below {path}: {text}. Rows there can still be read; make room (delete files, evict "
            "rows) and writes go on by themselves",
            retry_after_s=RETRY_FULL_S,
        )
    return DiskError(
        f"the disk below {path} does not work: {text}. Look at its mount and its health, then restart the shard"
    )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns errors of the binding and of the file system inside the block into DiskFull or DiskError."""
    try:
        yield
    except PsError:
        raise
    except Exception as error:
        raise disk_error(path, error) from error
