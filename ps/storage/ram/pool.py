"""Rows of one length, by place; a place given back is given out again, the last first.

Memory is given back by `trim`, which moves rows to the places that are free before them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ps.arrays import Positions
from ps.runtime.memory import Memory, ReservedArray
from ps.storage.ram.rows import MOVE_BYTES


class Pool:
    """Rows of `width` items of one dtype."""

    def __init__(self, width: int, dtype: npt.DTypeLike, max_rows: int, memory: Memory | None = None) -> None:
        self.row_bytes = width * np.dtype(dtype).itemsize
        self._rows = ReservedArray((width,), dtype, max_rows, memory)
        # of free places, with room for all: `give_back` needs none
        self._stack = ReservedArray((), np.uint32, max_rows, memory)
        self._free = 0
        self._used = 0  # places below it have been given out at least once

    def __len__(self) -> int:
        return self._used - self._free

    @property
    def array_PW(self) -> npt.NDArray[Any]:  # noqa: N802  an array, so its name carries its shape
        """[places, width]."""
        return self._rows.array

    @property
    def committed_bytes(self) -> int:
        """Bytes of rows."""
        return self._rows.committed_bytes

    @property
    def metadata_bytes(self) -> int:
        """Bytes of the list of free places."""
        return self._stack.committed_bytes

    def bytes_with(self, rows: int) -> int:
        """Returns what rows take, once so many more places can be taken."""
        return max(self._rows.committed_bytes, (self._used + max(rows - self._free, 0)) * self.row_bytes)

    def make_room(self, rows: int) -> None:
        """Makes room for so many places; raises ResourceExhausted, and then nothing has changed."""
        used = self._used + max(rows - self._free, 0)
        self._rows.ensure(used)
        self._stack.ensure(used)

    def take(self, n: int) -> Positions:
        """Returns n places, for which there is room."""
        reused = min(n, self._free)
        free, used = self._free - reused, self._used + n - reused
        free_N = self._stack.array[free : self._free].astype(np.int64)
        places_N = np.concatenate([free_N[::-1], np.arange(self._used, used)])
        self._free, self._used = free, used  # what took memory came before
        return places_N

    def give_back(self, places_N: Positions) -> None:
        """Takes places back whose contents are no longer needed."""
        self._stack.array[self._free : self._free + len(places_N)] = places_N
        self._free += len(places_N)

    def trim(self) -> tuple[int, npt.NDArray[np.uint32]]:
        """Gives back all memory but that of the rows that are here. Those behind the others move: the row at place
        `first` + p is at moved[p] from now on. Returns first and moved; takes no memory but for that."""
        first = len(self)
        free_P = self._stack.array[: self._free].astype(np.int64)
        moves_P = np.ones(self._used - first, np.bool_)
        moves_P[free_P[free_P >= first] - first] = False
        from_N, to_N = first + np.flatnonzero(moves_P), free_P[free_P < first]
        step = max(MOVE_BYTES // self.row_bytes, 1)
        for start in range(0, len(from_N), step):
            part = slice(start, start + step)
            self._rows.array[to_N[part]] = self._rows.array[from_N[part]]
        moved_P = np.zeros(len(moves_P), np.uint32)
        moved_P[from_N - first] = to_N
        self._used, self._free = first, 0
        self._rows.shrink(first)
        self._stack.shrink(first)
        return first, moved_P

    def close(self) -> None:
        """Gives the memory back."""
        self._rows.close()
        self._stack.close()
