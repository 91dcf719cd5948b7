"""Reads a file of a checkpoint from its beginning to its end, and says where it is damaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ps.durability.checkpoint.stores.store import FileStore, translated
from ps.errors import CheckpointCorrupt


class Reading:
    """A file, of which some bytes are read at a time. What it is asked for is never more than the file has: a length
    that is damaged takes no memory."""

    def __init__(self, store: FileStore, name: str, nbytes: int, start: int = 0, end: int | None = None) -> None:
        """`nbytes`: of the whole file, as its part says. Reads [start, end) of it; all by default. Raises
        CheckpointCorrupt where the file is missing or has another length, and DiskError."""
        self._store, self._name = store, name
        self.where = store.where(name)
        self.at, self._end = start, nbytes if end is None else end
        try:
            with translated(store.url):
                size = store.size(name)
        except FileNotFoundError:
            raise CheckpointCorrupt(f"{self.where}, byte 0: the file is missing") from None
        if size != nbytes:
            raise self.damaged(min(size, nbytes), f"the file has {size:,} bytes, and had {nbytes:,}")
        if not 0 <= start <= self._end <= nbytes:
            raise self.damaged(nbytes, f"it is said to have bytes {start:,} to {self._end:,}")

    @property
    def left(self) -> int:
        """How many bytes are still to be read."""
        return self._end - self.at

    def damaged(self, at: int, what: str) -> CheckpointCorrupt:
        """Returns the error that says so."""
        return CheckpointCorrupt(f"{self.where}, byte {at:,}: {what}. Take an older checkpoint")

    def into(self, buffer: memoryview) -> None:
        """Fills a buffer with the next bytes. Raises CheckpointCorrupt where there are fewer."""
        if len(buffer) > self.left:
            raise self.damaged(self.at, f"{len(buffer):,} bytes should be here, and {self.left:,} are left")
        try:
            with translated(self._store.url):
                n = self._store.read_into(self._name, self.at, buffer)
        except FileNotFoundError:
            raise self.damaged(0, "the file is gone") from None
        if n != len(buffer):
            raise self.damaged(self.at + n, f"the file ends here, {len(buffer) - n:,} bytes too early")
        self.at += n

    def bytes(self, n: int) -> bytes:
        """Returns the next n bytes. Raises CheckpointCorrupt where there are fewer."""
        return self.array(np.dtype(np.uint8), n).tobytes()

    def array(self, dtype: np.dtype[Any], n: int) -> npt.NDArray[Any]:
        """Returns the next n elements. Raises CheckpointCorrupt where there are fewer."""
        if n * dtype.itemsize > self.left:
            raise self.damaged(self.at, f"{n * dtype.itemsize:,} bytes should be here, and {self.left:,} are left")
        out_N = np.empty(n, dtype)
        if n:
            self.into(out_N.view(np.uint8).data)
        return out_N

    def end(self) -> None:
        """Raises CheckpointCorrupt unless all was read."""
        if self.left:
            raise self.damaged(self.at, f"the file has {self.left:,} bytes too many")
