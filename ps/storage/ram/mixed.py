"""Rows of two precisions in one arena: float32, and 16 bits an element (the cold tier of kind fp16).

A slot says nothing of where its row is: beside it is a place, in one of two pools. So a row changes its precision and
keeps its slot, and index, statistics, pins and steps never hear of it. Which rows are of which precision is decided
above. A new row is float32.

Cold rows are trained in place: widened block by block into float32, updated by the optimizer's own kernel, and rounded
back stochastically (`ps.kernels.rows.half`). What comes out depends on the row, its gradient, seed, push and id alone:
not on slot, place, order, or how a push is cut into updates.

Both pools together never take more than all slots would as float32 rows: where one would grow beyond that, the other
gives back what it does not need (`Pool.trim`). So precision may change at any time without memory for it.

    a row costs, beside what it costs in any arena,  4   its place
                                                   + 8   room in the lists of free places of both pools
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Flags, Ids, Rows, Slots
from ps.config import TableConfig
from ps.errors import ResourceExhausted
from ps.initializer import RowInitializer
from ps.kernels.rows.attribution import attribute
from ps.kernels.rows.half import gather_half, narrow, narrow_stochastic, widen
from ps.kernels.rows.places import HALF, move, split
from ps.kernels.rows.rows import gather, scatter, take
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.runtime.memory import Memory, ReservedArray
from ps.storage.ram.half_layout import State, cold_optimizer, half_layout
from ps.storage.ram.pool import Pool
from ps.storage.ram.rows import Updated, max_rows
from ps.storage.tier import RowLayout

BLOCK_BYTES = 256 << 10
"""Rows widened at a time: with their gradients they stay in a core's second cache."""
PLACE_BYTES = 12
"""For a slot: its place, and room in the lists of free places of both pools."""


class MixedRows:
    """`ps.storage.ram.rows.ArenaRows` of float32 and of half precision."""

    purpose = "rows"

    def __init__(self, config: TableConfig, rule: UpdateRule, state: State, memory: Memory | None = None) -> None:
        full, self.layout = RowLayout(config.dim, rule.state_width), half_layout(config.dim, config.optimizer, state)
        self._dim = config.dim
        self._initializer = RowInitializer.of(config)
        self._rule, self._cold_rule = rule, update_rule(cold_optimizer(config.optimizer, state), config.dim)
        self.lengths = [full.row_bytes, self.layout.row_bytes]
        self.ram_bytes = full.row_bytes + PLACE_BYTES
        self.max_rows = min(max_rows(self.layout.row_bytes + 8), int(HALF))
        self._slots_end = 0
        self._places = ReservedArray((), np.uint32, self.max_rows, memory)
        self._full = Pool(full.width, np.float32, max_rows(full.row_bytes + 8), memory)
        self._half = Pool(self.layout.items, np.uint16, self.max_rows, memory)

    # where rows are

    @property
    def half_rows(self) -> int:
        """How many rows are of half precision."""
        return len(self._half)

    def is_half(self, slots_N: Slots | slice) -> Flags:
        """Returns which of these slots have a row of half precision."""
        flags_N: Flags = self._places.array[slots_N] >= HALF
        return flags_N

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`."""
        self._places.ensure(slots_end)
        self._slots_end = max(self._slots_end, slots_end)
        pool = self._pool(length)
        if self._is_over(pool, rows):
            self._trim(self._other(pool))
        pool.make_room(rows)

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        self._places.array[to_N] = self._places.array[from_N]

    def shrink(self, slots_end: int) -> None:
        """See `ArenaRows`."""
        self._slots_end = slots_end
        self._places.shrink(slots_end)
        for pool in (self._full, self._half):
            self._trim(pool)

    def place(self, slots_N: Slots, length: int) -> None:
        """See `ArenaRows`."""
        pool = self._pool(length)
        self._places.array[slots_N] = pool.take(len(slots_N)) | self._mark(pool)

    def free(self, slots_N: Slots) -> None:
        """See `ArenaRows`."""
        full_N, half_N, _ = self._split(slots_N)
        self._full.give_back(full_N[full_N >= 0])
        self._half.give_back(half_N[half_N >= 0])

    # values and updates

    def gather(self, slots_N: Slots, ids_N: Ids, out_ND: Rows) -> None:
        """See `ArenaRows`."""
        full_N, half_N, halves = self._split(slots_N)
        gather(self._full.array_PW, full_N, out_ND)
        if halves:
            gather_half(self._half.array_PW, half_N, out_ND)
        missing_N = np.flatnonzero(slots_N < 0)
        if len(missing_N):
            initial_ND = np.empty((len(missing_N), out_ND.shape[1]), np.float32)
            self._initializer.fill(ids_N[missing_N], initial_ND)
            out_ND[missing_N] = initial_ND

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """See `ArenaRows`. Rows of cold rows are rounded to nearest; their state stays."""
        full_N, half_N, halves = self._split(slots_N)
        scatter(self._full.array_PW, full_N, rows_ND)
        return int(narrow(rows_ND, half_N, self._half.array_PW, self._dim, 0)) if halves else 0

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """See `ArenaRows`."""
        full_N, half_N, halves = self._split(slots_N)
        if not halves:
            return Updated(self._rule.update(self._full.array_PW, full_N, grads_ND, step))
        broken = clamped = 0
        for some_N, grads_RD in self._blocks(np.flatnonzero(full_N >= 0), grads_ND):
            broken += self._rule.update(self._full.array_PW, full_N[some_N], grads_RD, step)
        for some_N, grads_RD in self._blocks(np.flatnonzero(half_N >= 0), grads_ND):
            part = self._update_half(half_N[some_N], ids_S[slots_N[some_N]], grads_RD, push, step)
            broken, clamped = broken + part.broken, clamped + part.clamped
        return Updated(broken, clamped)

    def round(self, out_ND: Rows) -> None:
        """Changes values to those that their rows have when they have been narrowed."""
        item_ND, order_N = np.empty(out_ND.shape, np.uint16), np.arange(len(out_ND))
        narrow(out_ND, order_N, item_ND, self._dim, 0)
        gather_half(item_ND, order_N, out_ND)

    # whole rows

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        full_N, half_N, _ = self._split(slots_N)
        found = []
        for pool, places_N in ((self._full, full_N), (self._half, half_N)):
            here_N = np.flatnonzero(places_N >= 0)
            if len(here_N):
                found.append((here_N, pool.array_PW[places_N[here_N]].view(np.uint8)))
        return found

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """See `ArenaRows`."""
        pool = self._pool(rows_NB.shape[1])
        other_N = slots_N[self.is_half(slots_N) != (pool is self._half)]
        self.free(other_N)
        self.place(other_N, rows_NB.shape[1])
        places_N = (self._places.array[slots_N] & ~HALF).astype(np.int64)
        pool.array_PW[places_N] = rows_NB.view(pool.array_PW.dtype)

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

    # from one precision to the other

    def narrow(self, slots_N: Slots) -> int:
        """Makes float32 rows half, rounded to nearest. Returns how many had more than those hold, which is 65504 then.
        Raises ResourceExhausted, and then nothing has changed."""
        ((_, rows_NB),) = self.copies(slots_N)
        self._replace(slots_N, self.layout.to_half(rows_NB))
        return self.layout.beyond_half(rows_NB)

    def make_room_to_widen(self, rows: int) -> None:
        """Makes room for `widen`, which cannot fail then for so many rows. Raises ResourceExhausted."""
        if self._is_over(self._full, rows):
            self._trim(self._half)
        # Beyond that they take the memory that they had as half rows.
        left = (self._slots_end * self.lengths[0] - self._half.committed_bytes) // self.lengths[0] - len(self._full)
        self._full.make_room(max(min(rows, left), 0))

    def widen(self, slots_N: Slots) -> None:
        """Makes half rows float32, exactly. There is room."""
        ((_, rows_NB),) = self.copies(slots_N)
        self._replace(slots_N, self.layout.to_full(rows_NB))

    # bytes

    @property
    def committed_bytes(self) -> int:
        """See `ArenaRows`."""
        return self._full.committed_bytes

    @property
    def half_bytes(self) -> int:
        """Bytes of rows of half precision."""
        return self._half.committed_bytes

    @property
    def metadata_bytes(self) -> int:
        """See `ArenaRows`."""
        return self._places.committed_bytes + self._full.metadata_bytes + self._half.metadata_bytes

    def close(self) -> None:
        """See `ArenaRows`."""
        for part in (self._places, self._full, self._half):
            part.close()

    def _pool(self, length: int) -> Pool:
        return self._full if length == self.lengths[0] else self._half

    def _other(self, pool: Pool) -> Pool:
        return self._half if pool is self._full else self._full

    def _is_over(self, pool: Pool, rows: int) -> bool:
        """Returns whether the pools would take more than float32 rows in all slots, with so many places more in this
        one."""
        return pool.bytes_with(rows) + self._other(pool).committed_bytes > self._slots_end * self.lengths[0]

    def _trim(self, pool: Pool) -> None:
        first, moved_P = pool.trim()
        move(self._places.array, self._slots_end, np.uint32(self._mark(pool)), first, moved_P)

    def _replace(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """Writes rows in the other precision, of which these are the bytes. Raises ResourceExhausted, and then nothing
        has changed."""
        pool = self._pool(rows_NB.shape[1])
        if self._is_over(pool, len(slots_N)):
            self._trim(self._other(pool))
        if self._is_over(pool, len(slots_N)):
            self._exchange(slots_N, pool)
        else:
            pool.make_room(len(slots_N))
        self.put(slots_N, rows_NB)

    def _exchange(self, slots_N: Slots, pool: Pool) -> None:
        """Gives slots places in this pool, in the memory that they leave in the other one. Their bytes are not kept,
        unless it raises ResourceExhausted."""
        other = self._other(pool)
        ((_, before_NB),) = self.copies(slots_N)
        self.free(slots_N)
        self._trim(other)
        try:
            pool.make_room(len(slots_N))
        except ResourceExhausted:
            other.make_room(len(slots_N))  # what has just been given back
            self._places.array[slots_N] = other.take(len(slots_N)) | self._mark(other)
            self.put(slots_N, before_NB)
            raise
        self._places.array[slots_N] = pool.take(len(slots_N)) | self._mark(pool)

    def _mark(self, pool: Pool) -> int:
        return int(HALF) if pool is self._half else 0

    def _split(self, slots_N: Slots) -> tuple[Slots, Slots, int]:
        full_N, half_N = np.empty(len(slots_N), np.int64), np.empty(len(slots_N), np.int64)
        halves = split(self._places.array, slots_N, full_N, half_N)
        return full_N, half_N, halves

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
        layout, rows_PI, n = self.layout, self._half.array_PW, len(places_R)
        row_RW = np.empty((n, layout.width), np.float32)
        widen(rows_PI, places_R, row_RW, layout.half, layout.brain)
        broken = self._cold_rule.update(row_RW, np.arange(n), grads_RD, step)
        seed = self._initializer.seed
        push_ = np.uint64(push)
        return Updated(
            broken, narrow_stochastic(row_RW, places_R, rows_PI, layout.half, layout.brain, seed, push_, ids_R)
        )
