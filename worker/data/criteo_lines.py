"""Blocks of whole lines out of a file, plain or gzip, a few megabytes at a time. Knows nothing of what a line holds."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 16
"""A longer line is cut here: memory stays bounded when the file is no text at all."""

_GZIP_MAGIC = b"\x1f\x8b"


def line_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The file's bytes in order, each block ending with a line (the last one perhaps without its LF).

    gzip is known by the file's first bytes, not by its name. Raises OSError (gzip.BadGzipFile too) and EOFError for
    a gzip file that was cut short.
    """
    with _open(path) as file:
        rest = b""
        while chunk := file.read(block_bytes):
            end = chunk.rfind(b"\n") + 1
            if end:
                yield rest + chunk[:end]
                rest = chunk[end:]
            else:
                rest += chunk
            rest = rest[:MAX_LINE_BYTES]  # a shorter rest is not touched; a longer one ends with the next LF
        if rest:
            yield rest


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb")
