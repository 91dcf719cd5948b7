"""Reads blocks of whole lines from a file, plain or gzip, a few megabytes at a time. What a line holds does not matter
here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from worker.data.files import UTF8_MARK, reading, text_of

BLOCK_BYTES = 4 << 20
MAX_LINE_BYTES = 1 << 16
"""A longer line is cut at this length, so that memory stays bounded when the file is not text at all."""


def line_blocks(path: Path, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yields the file's bytes in order, each block ending with a line (the last one perhaps without its LF).

    A byte order mark at the beginning is left out. Raises UnreadableFile, at the first block or later; the error says
    after how many lines.
    """
    lines, rest, first = 0, b"", True
    with reading(path, lambda: f" after line {lines:,}" if lines else ""), text_of(path) as file:
        while chunk := file.read(block_bytes):
            if first:
                chunk, first = chunk.removeprefix(UTF8_MARK), False
            lines += chunk.count(b"\n")
            end = chunk.rfind(b"\n") + 1
            if end:
                yield rest + chunk[:end]
                rest = chunk[end:]
            else:
                rest += chunk
            rest = rest[:MAX_LINE_BYTES]  # a shorter rest is not touched; a longer one ends with the next LF
        if rest:
            yield rest
