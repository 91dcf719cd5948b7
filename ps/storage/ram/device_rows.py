"""Rows of an arena that torch holds, on a GPU: the hot tier of tables with `device: cuda`.

Index, statistics, marks and pins stay in RAM, as for any arena; only the rows, value and state, are on the device. What
goes there for a batch are slots and gradients, what comes back are values. An id without a row is initialized here, on
the CPU, for the initial values are those of `ps.kernels.rows.init` to the bit.

Rows lie in chunks, each a tensor [rows, width], and a slot is a place in the chunks one after the other. So growing
allocates and copies nothing: one tensor that is made larger would need twice its bytes for the time of the copy, and a
GPU is bought to be full. A chunk is a quarter of what there is, at least: a fifth of the bytes is ahead of need at
most, and 48 chunks are 80 GB, so a batch is cut into few parts.

`torch-cpu` is the same on tensors in RAM, so that it can be tested without a GPU. torch is imported with the first such
table, by this file alone.

Batches are worked off in blocks of BLOCK_BYTES of rows, so what is needed on the device beside the rows is small;
SPARE_BYTES of it stay free for that. Two threads may update different slots: torch queues both on one stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids, Rows, Slots
from ps.config import TableConfig
from ps.errors import ConfigError, ResourceExhausted
from ps.initializer import RowInitializer
from ps.kernels.updates.optim import UpdateRule
from ps.runtime import memory
from ps.storage.ram.device_budget import DeviceBudget
from ps.storage.ram.rows import Updated, max_rows
from ps.storage.tier import RowLayout

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 1 << 20
"""The smallest chunk."""
GROWTH = 4
"""A chunk is one part in so many of what there is."""
BLOCK_BYTES = 16 << 20
"""Rows worked on at a time; an update needs a few times as much for what it computes on the way."""
SPARE_BYTES = 256 << 20
"""How much of a GPU's memory stays free when rows are given room."""


class DeviceRows:
    """`ps.storage.ram.rows.ArenaRows` on a device; float32 rows."""

    purpose = "device_rows"
    ram_bytes = 0

    def __init__(self, config: TableConfig, rule: UpdateRule, budget: DeviceBudget) -> None:
        """Raises ConfigError if torch, or the device, is not there."""
        check_device(config.device)
        import torch

        self._device = torch.device("cuda" if config.device == "cuda" else "cpu")
        self._layout = RowLayout(config.dim, rule.state_width)
        self._initializer = RowInitializer.of(config)
        self._update = config.optimizer.on_device
        self._budget = budget
        self.lengths = [self._layout.row_bytes]
        self.max_rows = max_rows(0)
        self._chunks: list[torch.Tensor] = []
        self._starts = np.zeros(1, np.int64)  # of each chunk, and where the next one will begin
        self._block_rows = max(BLOCK_BYTES // self._layout.row_bytes, 1)

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`. Raises ResourceExhausted, that names memory.gpu_bytes if that is the bound."""
        have = int(self._starts[-1])
        if slots_end <= have:
            return
        needed, row_bytes = slots_end - have, self._layout.row_bytes
        wanted = max(needed, have // GROWTH, CHUNK_BYTES // row_bytes)
        left = min(self._budget.left, self._free_bytes() - SPARE_BYTES)
        n = max(needed, min(wanted, left // row_bytes, self.max_rows - have))
        self._budget.take(n * row_bytes)
        try:
            self._chunks.append(self._allocate(n))
        except BaseException:
            self._budget.give(n * row_bytes)
            raise
        self._starts = np.append(self._starts, have + n)

    def place(self, slots_N: Slots, length: int) -> None:
        """Does nothing: a slot is a place."""

    def free(self, slots_N: Slots) -> None:
        """Does nothing: a slot is a place."""

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        for some_N in self._blocks(np.arange(len(from_N))):
            self._put(to_N[some_N], self._take(from_N[some_N], self._layout.width))

    def shrink(self, slots_end: int) -> None:
        """Does nothing: chunks stay, because the device has a budget of its own."""

    def gather(self, slots_N: Slots, ids_N: Ids, out_ND: Rows) -> None:
        """See `ArenaRows`."""
        missing_N = np.flatnonzero(slots_N < 0)
        if len(missing_N):
            initial_ND = np.empty((len(missing_N), out_ND.shape[1]), np.float32)
            self._initializer.fill(ids_N[missing_N], initial_ND)
            out_ND[missing_N] = initial_ND
        for some_N in self._blocks(np.flatnonzero(slots_N >= 0)):
            out_ND[some_N] = self._take(slots_N[some_N], out_ND.shape[1]).cpu().numpy()

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """See `ArenaRows`."""
        for some_N in self._blocks(np.flatnonzero(slots_N >= 0)):
            self._put(slots_N[some_N], self._upload(rows_ND, some_N))
        return 0

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """See `ArenaRows`."""
        broken = 0
        for some_N in self._blocks(np.flatnonzero(slots_N >= 0)):
            rows_NW = self._take(slots_N[some_N], self._layout.width)
            self._update(rows_NW, self._upload(grads_ND, some_N), step)
            broken += int((~rows_NW.isfinite()).any(dim=1).sum())
            self._put(slots_N[some_N], rows_NW)
        return Updated(broken)

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        if not len(slots_N):
            return []
        row_NW = np.empty((len(slots_N), self._layout.width), np.float32)
        all_N = np.arange(len(slots_N))
        for some_N in self._blocks(all_N):
            row_NW[some_N] = self._take(slots_N[some_N], self._layout.width).cpu().numpy()
        return [(all_N, row_NW.view(np.uint8))]

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """See `ArenaRows`."""
        self.set(slots_N, rows_NB.view(np.float32))

    def values(self, rows_NB: Bytes) -> Rows:
        """See `ArenaRows`."""
        return rows_NB.view(np.float32)[:, : self._layout.dim]

    def as_full(self, rows_NB: Bytes) -> Bytes:
        """See `ArenaRows`."""
        return rows_NB

    def attribute(self, slots_N: Slots, grads_ND: Rows, out_N: Rows) -> None:
        """See `ArenaRows`."""
        for some_N in self._blocks(np.arange(len(slots_N))):
            value_ND = self._take(slots_N[some_N], self._layout.dim)
            out_N[some_N] = (value_ND * self._upload(grads_ND, some_N)).sum(dim=1).abs().cpu().numpy()

    @property
    def committed_bytes(self) -> int:
        """See `ArenaRows`. Of the device's memory."""
        return int(self._starts[-1]) * self._layout.row_bytes

    @property
    def metadata_bytes(self) -> int:
        """Bytes of arrays that tell where rows are: there are none."""
        return 0

    def close(self) -> None:
        """See `ArenaRows`."""
        import torch

        self._budget.give(self.committed_bytes)
        self._chunks.clear()
        self._starts = np.zeros(1, np.int64)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # it would be kept for this process, and not count as free

    def _free_bytes(self) -> int:
        """Returns how many bytes of the device's memory are free."""
        import torch

        return torch.cuda.mem_get_info(self._device)[0] if self._device.type == "cuda" else 1 << 62

    def _allocate(self, n: int) -> torch.Tensor:
        import torch

        nbytes, free = n * self._layout.row_bytes, self._free_bytes()
        if free < nbytes + SPARE_BYTES:
            raise self._no_room(nbytes, free)
        if self._device.type == "cpu":
            memory.HOST.take(nbytes)
        try:
            return torch.empty((n, self._layout.width), dtype=torch.float32, device=self._device)
        except torch.cuda.OutOfMemoryError as error:  # another process was faster
            raise self._no_room(nbytes, 0) from error

    def _no_room(self, nbytes: int, free: int) -> ResourceExhausted:
        return ResourceExhausted(
            f"{nbytes:,} bytes more for rows on the device, which has {free:,} free and needs {SPARE_BYTES:,} of them "
            "to work with: set memory.gpu_bytes below what it has, end other processes there, or add shards"
        )

    def _blocks(self, positions_P: Slots) -> Iterator[Slots]:
        """Yields positions in blocks."""
        for start in range(0, len(positions_P), self._block_rows):
            yield positions_P[start : start + self._block_rows]

    def _parts(self, slots_N: Slots) -> Iterator[tuple[torch.Tensor, Slots, torch.Tensor]]:
        """Yields (chunk, positions in `slots_N`, places in the chunk) for each chunk that has some of these slots; in
        their order if it has all."""
        chunk_N = np.searchsorted(self._starts, slots_N, side="right").astype(np.int16) - 1
        order_N = np.argsort(chunk_N, kind="stable")  # 16 bits: numpy sorts them by radix
        ends_C = np.cumsum(np.bincount(chunk_N, minlength=len(self._chunks)))
        for at, here_P in enumerate(np.split(order_N, ends_C[:-1])):
            if len(here_P):
                yield self._chunks[at], here_P, self._on_device(slots_N[here_P] - self._starts[at])

    def _take(self, slots_N: Slots, width: int) -> torch.Tensor:
        """Returns copies of the first floats of these rows, on the device; slots are in use, at least one."""
        found = [
            (here_P, chunk[:, :width].index_select(0, places_P)) for chunk, here_P, places_P in self._parts(slots_N)
        ]
        if len(found) == 1:
            return found[0][1]
        out_NW = found[0][1].new_empty((len(slots_N), width))
        for here_P, rows_PW in found:
            out_NW.index_copy_(0, self._on_device(here_P), rows_PW)
        return out_NW

    def _put(self, slots_N: Slots, rows_ND: torch.Tensor) -> None:
        """Writes the first floats of these rows."""
        for chunk, here_P, places_P in self._parts(slots_N):
            some = rows_ND if len(here_P) == len(slots_N) else rows_ND.index_select(0, self._on_device(here_P))
            chunk[:, : rows_ND.shape[1]].index_copy_(0, places_P, some)

    def _upload(self, rows_ND: Rows, some_N: Slots) -> torch.Tensor:
        """Writes some rows of a batch."""
        return self._on_device(rows_ND[some_N])

    def _on_device(self, array: npt.NDArray[np.float32] | Slots) -> torch.Tensor:
        """`array` is a fresh copy: torch may keep it, and does not like what cannot be written to."""
        import torch

        return torch.from_numpy(array).to(self._device)


def check_device(device: str) -> None:
    """Raises ConfigError unless torch is here and sees the device."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"device: {device} needs torch, which is not installed where the shard runs: install it there "
            "(pip install torch), or use device: cpu"
        ) from error
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device: cuda, but torch {torch.__version__} sees no CUDA device where the shard runs; use device: cpu"
        )
