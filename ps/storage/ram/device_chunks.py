"""Tensors that hold rows on a device, by slot.

Rows lie in chunks, each a tensor [rows, width], and a slot is a place in the chunks one after the other. So growing
allocates and copies nothing: one tensor that is made larger would need twice its bytes for the time of the copy, and a
GPU is bought to be full. A chunk is a quarter of what there is, at least: a fifth of the bytes is ahead of need at
most, and 48 chunks are 80 GB, so a batch is cut into few parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ps.arrays import Slots
from ps.errors import ResourceExhausted
from ps.runtime import memory
from ps.storage.ram.device_budget import DeviceBudget

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 1 << 20
"""The smallest chunk."""
GROWTH = 4
"""A chunk is one part in so many of what there is."""
SPARE_BYTES = 256 << 20
"""How much of a GPU's memory stays free when rows are given room."""


class Chunks:
    """The chunks of one table, float32 [rows, width] each."""

    def __init__(self, device: torch.device, width: int, budget: DeviceBudget) -> None:
        self._device, self._width, self._row_bytes, self._budget = device, width, 4 * width, budget
        self.tensors: list[torch.Tensor] = []
        self._starts = np.zeros(1, np.int64)  # of each chunk, and where the next one will begin

    @property
    def nbytes(self) -> int:
        """How many bytes of the device's memory the chunks take."""
        return int(self._starts[-1]) * self._row_bytes

    def grow(self, slots_end: int, max_rows: int) -> None:
        """Makes room for slots below `slots_end`, and for some more, up to `max_rows`. Raises ResourceExhausted, that
        names memory.gpu_bytes if that is the bound."""
        have = int(self._starts[-1])
        if slots_end <= have:
            return
        needed, row_bytes = slots_end - have, self._row_bytes
        wanted = max(needed, have // GROWTH, CHUNK_BYTES // row_bytes)
        left = min(self._budget.left, self._free_bytes() - SPARE_BYTES)
        n = max(needed, min(wanted, left // row_bytes, max_rows - have))
        self._budget.take(n * row_bytes)
        try:
            self.tensors.append(self._allocate(n))
        except BaseException:
            self._budget.give(n * row_bytes)
            raise
        self._starts = np.append(self._starts, have + n)

    def take(self, slots_N: Slots, width: int) -> torch.Tensor:
        """Returns copies of the first `width` floats of rows, float32 [n, width] on the device, for slots in use, at
        least one."""
        found = [
            (here_P, chunk[:, :width].index_select(0, places_P)) for chunk, here_P, places_P in self._parts(slots_N)
        ]
        if len(found) == 1:
            return found[0][1]
        out_NW = found[0][1].new_empty((len(slots_N), width))
        for here_P, rows_PW in found:
            out_NW.index_copy_(0, self.on_device(here_P), rows_PW)
        return out_NW

    def put(self, slots_N: Slots, rows_ND: torch.Tensor) -> None:
        """Writes float32 [n, width] over the first floats of the rows in these slots."""
        for chunk, here_P, places_P in self._parts(slots_N):
            some = rows_ND if len(here_P) == len(slots_N) else rows_ND.index_select(0, self.on_device(here_P))
            chunk[:, : rows_ND.shape[1]].index_copy_(0, places_P, some)

    def on_device(self, array: npt.NDArray[np.float32] | Slots) -> torch.Tensor:
        """Returns an array as a tensor on the device. `array` is a fresh copy: torch may keep it, and does not like
        what cannot be written to."""
        import torch

        return torch.from_numpy(array).to(self._device)

    def close(self) -> None:
        """Gives the memory back."""
        import torch

        self._budget.give(self.nbytes)
        self.tensors.clear()
        self._starts = np.zeros(1, np.int64)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # it would be kept for this process, and not count as free

    def _free_bytes(self) -> int:
        """Returns how many bytes of the device's memory are free."""
        import torch

        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 1 << 62

    def _allocate(self, n: int) -> torch.Tensor:
        import torch

        nbytes, free = n * self._row_bytes, self._free_bytes()
        if free < nbytes + SPARE_BYTES:
            raise self._no_room(nbytes, free)
        if self._device.type == "cpu":
            memory.HOST.take(nbytes)
        try:
            return torch.empty((n, self._width), dtype=torch.float32, device=self._device)
        except torch.cuda.OutOfMemoryError as error:  # another process was faster
            raise self._no_room(nbytes, 0) from error

    def _no_room(self, nbytes: int, free: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"{nbytes:,} bytes more for rows on the device, which has {free:,} free and needs {SPARE_BYTES:,} of them "
            "to work with: set memory.gpu_bytes below what it has, end other processes there, or add shards"
        )

    def _parts(self, slots_N: Slots) -> Iterator[tuple[torch.Tensor, Slots, torch.Tensor]]:
        """(chunk, positions in `slots_N`, places in the chunk) for each chunk that has some of these slots; in their
        order if it has all."""
        chunk_N = np.searchsorted(self._starts, slots_N, side="right").astype(np.int16) - 1
        order_N = np.argsort(chunk_N, kind="stable")  # 16 bits: numpy sorts them by radix
        ends_C = np.cumsum(np.bincount(chunk_N, minlength=len(self.tensors)))
        for at, here_P in enumerate(np.split(order_N, ends_C[:-1])):
            if len(here_P):
                yield self.tensors[at], here_P, self.on_device(slots_N[here_P] - self._starts[at])
