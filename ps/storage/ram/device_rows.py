"""Rows of an arena that torch holds, on a GPU: the hot tier of tables with `device: cuda`.

Index, statistics, marks and pins stay in RAM, as for any arena; only the rows, value and state, are on the device. What
goes there for a batch are slots and gradients, what comes back are values. An id without a row is initialized here, on
the CPU, for the initial values are those of `ps.kernels.rows.init` to the bit.

`torch-cpu` is the same on tensors in RAM, so that it can be tested without a GPU. torch is imported with the first such
table, by this file and `ps.storage.ram.device_chunks`, which has the tensors.

Batches are worked off in blocks of BLOCK_BYTES of rows, so what is needed on the device beside the rows is small:
`device_chunks.SPARE_BYTES` stay free for that. Two threads may update different slots: torch queues both on one stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids, Rows, Slots
from ps.config import Optimizer, TableConfig
from ps.errors import ConfigError
from ps.initializer import RowInitializer
from ps.kernels.updates.optim import UpdateRule
from ps.storage.ram.device_budget import DeviceBudget
from ps.storage.ram.device_chunks import Chunks
from ps.storage.ram.rows import Updated, max_rows
from ps.storage.tier import RowLayout

if TYPE_CHECKING:
    import torch

BLOCK_BYTES = 16 << 20
"""Rows worked on at a time; an update needs a few times as much for what it computes on the way."""


class DeviceRows:
    """`ps.storage.ram.rows.ArenaRows` on a device; float32 rows."""

    purpose = "device_rows"
    ram_bytes = 0

    def __init__(self, config: TableConfig, rule: UpdateRule, budget: DeviceBudget) -> None:
        """Raises ConfigError if torch, or the device, is not there."""
        check_device(config.device)
        import torch

        self._layout = RowLayout(config.dim, rule.state_width)
        self._initializer = RowInitializer.of(config)
        self._update = config.optimizer.on_device
        self.lengths = [self._layout.row_bytes]
        self.max_rows = max_rows(0)
        self.chunks = Chunks(torch.device("cuda" if config.device == "cuda" else "cpu"), self._layout.width, budget)
        self._block_rows = max(BLOCK_BYTES // self._layout.row_bytes, 1)

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`. Raises ResourceExhausted, that names memory.gpu_bytes if that is the bound."""
        self.chunks.grow(slots_end, self.max_rows)

    def place(self, slots_N: Slots, length: int) -> None:
        """Does nothing: a slot is a place."""

    def free(self, slots_N: Slots) -> None:
        """Does nothing: a slot is a place."""

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        for some_N in self._blocks(np.arange(len(from_N))):
            self.chunks.put(to_N[some_N], self.chunks.take(from_N[some_N], self._layout.width))

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
            out_ND[some_N] = self.chunks.take(slots_N[some_N], out_ND.shape[1]).cpu().numpy()

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """See `ArenaRows`."""
        for some_N in self._blocks(np.flatnonzero(slots_N >= 0)):
            self.chunks.put(slots_N[some_N], self._upload(rows_ND, some_N))
        return 0

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """See `ArenaRows`."""
        broken = 0
        for some_N in self._blocks(np.flatnonzero(slots_N >= 0)):
            rows_NW = self.chunks.take(slots_N[some_N], self._layout.width)
            self._update(rows_NW, self._upload(grads_ND, some_N), step)
            broken += int((~rows_NW.isfinite()).any(dim=1).sum())
            self.chunks.put(slots_N[some_N], rows_NW)
        return Updated(broken)

    def train_with(self, optimizer: Optimizer) -> None:
        """See `ArenaRows`."""
        self._update = optimizer.on_device

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        if not len(slots_N):
            return []
        row_NW = np.empty((len(slots_N), self._layout.width), np.float32)
        all_N = np.arange(len(slots_N))
        for some_N in self._blocks(all_N):
            row_NW[some_N] = self.chunks.take(slots_N[some_N], self._layout.width).cpu().numpy()
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
            value_ND = self.chunks.take(slots_N[some_N], self._layout.dim)
            out_N[some_N] = (value_ND * self._upload(grads_ND, some_N)).sum(dim=1).abs().cpu().numpy()

    @property
    def committed_bytes(self) -> int:
        """See `ArenaRows`. Of the device's memory."""
        return self.chunks.nbytes

    @property
    def metadata_bytes(self) -> int:
        """Bytes of arrays that tell where rows are: there are none."""
        return 0

    def close(self) -> None:
        """See `ArenaRows`."""
        self.chunks.close()

    def _blocks(self, positions_P: Slots) -> Iterator[Slots]:
        """Yields positions in blocks."""
        for start in range(0, len(positions_P), self._block_rows):
            yield positions_P[start : start + self._block_rows]

    def _upload(self, rows_ND: Rows, some_N: Slots) -> torch.Tensor:
        """Copies some rows of a batch to the device."""
        return self.chunks.on_device(rows_ND[some_N])


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
