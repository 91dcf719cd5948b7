"""Rows of two precisions in one arena: float32, and 16 bits an element (the cold tier of kind fp16).

Where a slot's row is, and how it changes its precision and keeps its slot, is told by `ps.storage.ram.pools`; here is
the arithmetic on rows. Which rows are of which precision is decided above. A new row is float32.

Cold rows are trained in place: widened block by block into float32, updated by the optimizer's own kernel, and rounded
back stochastically (`ps.kernels.rows.half`). What comes out depends on the row, its gradient, seed, push and id alone:
not on slot, place, order, or how a push is cut into updates.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids, Rows, Slots
from ps.config import Optimizer, TableConfig
from ps.initializer import RowInitializer
from ps.kernels.rows.attribution import attribute
from ps.kernels.rows.half import gather_half, narrow, narrow_stochastic, widen
from ps.kernels.rows.rows import gather, scatter, take
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.runtime.memory import Memory
from ps.storage.ram.half_layout import HalfState, cold_optimizer, half_layout
from ps.storage.ram.pools import PLACE_BYTES, Pools
from ps.storage.ram.rows import Updated
from ps.storage.tier import RowLayout

BLOCK_BYTES = 256 << 10
"""Rows widened at a time: with their gradients they stay in a core's second cache."""


class MixedRows:
    """`ps.storage.ram.rows.ArenaRows` of float32 and of half precision."""

    purpose = "rows"

    def __init__(self, config: TableConfig, rule: UpdateRule, state: HalfState, memory: Memory | None = None) -> None:
        full, self.layout = RowLayout(config.dim, rule.state_width), half_layout(config.dim, config.optimizer, state)
        self._dim = config.dim
        self._initializer = RowInitializer.of(config)
        self._state = state
        self._rule, self._cold_rule = rule, update_rule(cold_optimizer(config.optimizer, state), config.dim)
        self.lengths = [full.row_bytes, self.layout.row_bytes]
        self.ram_bytes = full.row_bytes + PLACE_BYTES
        self.pools = Pools(full.width, self.layout.items, memory)
        self.max_rows = self.pools.max_rows

    # from one precision to the other

    def narrow(self, slots_N: Slots) -> int:
        """Makes float32 rows half, rounded to nearest. Returns how many had more than those hold, which is 65504 then.
        Raises ResourceExhausted, and then nothing has changed."""
        ((_, rows_NB),) = self.copies(slots_N)
        self.pools.replace(slots_N, self.layout.to_half(rows_NB))
        return self.layout.beyond_half(rows_NB)

    def widen(self, slots_N: Slots) -> None:
        """Makes half rows float32, exactly. There is room (`Pools.make_room_to_widen`)."""
        ((_, rows_NB),) = self.copies(slots_N)
        self.pools.replace(slots_N, self.layout.to_full(rows_NB))

    # values and updates

    def gather(self, slots_N: Slots, ids_N: Ids, out_ND: Rows) -> None:
        """See `ArenaRows`."""
        full_N, half_N, halves = self.pools.split(slots_N)
        gather(self.pools.full.array_PW, full_N, out_ND)
        if halves:
            gather_half(self.pools.half.array_PW, half_N, out_ND)
        missing_N = np.flatnonzero(slots_N < 0)
        if len(missing_N):
            initial_ND = np.empty((len(missing_N), out_ND.shape[1]), np.float32)
            self._initializer.fill(ids_N[missing_N], initial_ND)
            out_ND[missing_N] = initial_ND

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """See `ArenaRows`. Rows of cold rows are rounded to nearest; their state stays."""
        full_N, half_N, halves = self.pools.split(slots_N)
        scatter(self.pools.full.array_PW, full_N, rows_ND)
        return int(narrow(rows_ND, half_N, self.pools.half.array_PW, self._dim, 0)) if halves else 0

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """See `ArenaRows`."""
        full_N, half_N, halves = self.pools.split(slots_N)
        full_PW = self.pools.full.array_PW
        if not halves:
            return Updated(self._rule.update(full_PW, full_N, grads_ND, step))
        broken = clamped = 0
        for some_N, grads_RD in self._blocks(np.flatnonzero(full_N >= 0), grads_ND):
            broken += self._rule.update(full_PW, full_N[some_N], grads_RD, step)
        for some_N, grads_RD in self._blocks(np.flatnonzero(half_N >= 0), grads_ND):
            part = self._update_half(half_N[some_N], ids_S[slots_N[some_N]], grads_RD, push, step)
            broken, clamped = broken + part.broken, clamped + part.clamped
        return Updated(broken, clamped)

    def train_with(self, optimizer: Optimizer) -> None:
        """See `ArenaRows`."""
        self._rule = update_rule(optimizer, self._dim)
        self._cold_rule = update_rule(cold_optimizer(optimizer, self._state), self._dim)

    def values(self, rows_NB: Bytes) -> Rows:
        """See `ArenaRows`."""
        if rows_NB.shape[1] == self.lengths[0]:
            return rows_NB.view(np.float32)[:, : self._dim]
        values_ND = np.empty((len(rows_NB), self._dim), np.float32)
        gather_half(rows_NB.view(np.uint16), np.arange(len(rows_NB)), values_ND)
        return values_ND

    def as_full(self, rows_NB: Bytes) -> Bytes:
        """See `ArenaRows`."""
        return rows_NB if rows_NB.shape[1] == self.lengths[0] else self.layout.to_full(rows_NB)

    def attribute(self, slots_N: Slots, grads_ND: Rows, out_N: Rows) -> None:
        """See `ArenaRows`."""
        value_ND = np.empty(grads_ND.shape, np.float32)
        self.gather(slots_N, slots_N, value_ND)  # all have a row: no id is asked for
        attribute(value_ND, np.arange(len(slots_N)), grads_ND, out_N)

    # where rows are: see `ArenaRows` for each

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`."""
        self.pools.make_room(slots_end, rows, length)

    def place(self, slots_N: Slots, length: int) -> None:
        """See `ArenaRows`."""
        self.pools.place(slots_N, length)

    def free(self, slots_N: Slots) -> None:
        """See `ArenaRows`."""
        self.pools.free(slots_N)

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        self.pools.move(from_N, to_N)

    def shrink(self, slots_end: int) -> None:
        """See `ArenaRows`."""
        self.pools.shrink(slots_end)

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        return self.pools.copies(slots_N)

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """See `ArenaRows`."""
        self.pools.put(slots_N, rows_NB)

    @property
    def committed_bytes(self) -> int:
        """See `ArenaRows`."""
        return self.pools.full.committed_bytes

    @property
    def metadata_bytes(self) -> int:
        """See `ArenaRows`."""
        return self.pools.metadata_bytes

    def close(self) -> None:
        """See `ArenaRows`."""
        self.pools.close()

    def _blocks(self, positions_P: Slots, grads_ND: Rows) -> Iterator[tuple[Slots, Rows]]:
        """Positions, some at a time, and their gradients in a buffer."""
        rows = max(min(len(positions_P), BLOCK_BYTES // (4 * self.layout.width)), 1)
        buffer_RD = np.empty((rows, grads_ND.shape[1]), np.float32)
        for start in range(0, len(positions_P), rows):
            some_N = positions_P[start : start + rows]
            grads_RD = buffer_RD[: len(some_N)]
            take(grads_ND, some_N, grads_RD)
            yield some_N, grads_RD

    def _update_half(self, places_R: Slots, ids_R: Ids, grads_RD: Rows, push: int, step: int) -> Updated:
        layout, rows_PI, n = self.layout, self.pools.half.array_PW, len(places_R)
        row_RW = np.empty((n, layout.width), np.float32)
        widen(rows_PI, places_R, row_RW, layout.half, layout.brain)
        broken = self._cold_rule.update(row_RW, np.arange(n), grads_RD, step)
        seed = self._initializer.seed
        push_ = np.uint64(push)
        return Updated(
            broken, narrow_stochastic(row_RW, places_R, rows_PI, layout.half, layout.brain, seed, push_, ids_R)
        )
