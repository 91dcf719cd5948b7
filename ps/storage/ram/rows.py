"""The rows of an arena by slot: the bytes of values and state, and the arithmetic on them.

This file has the rows of tables whose rows are all float32: a row lies at its slot. `ps.storage.ram.mixed` has those of
two lengths, `ps.storage.ram.device_rows` those on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ps.arrays import Bytes, Ids, Rows, Slots
from ps.config import Optimizer, TableConfig
from ps.initializer import RowInitializer
from ps.kernels.index.index import MAX_SLOT
from ps.kernels.rows.attribution import attribute
from ps.kernels.rows.rows import scatter
from ps.kernels.updates.optim import UpdateRule, update_rule
from ps.runtime.host import host_ram_bytes
from ps.runtime.memory import Memory, ReservedArray
from ps.storage.tier import RowLayout

ROW_OVERHEAD_BYTES = 38
"""What a row costs beside its own bytes."""

MOVE_BYTES = 1 << 20
"""How many bytes of rows are copied at a time."""


class Updated(NamedTuple):
    """The overflows of an update."""

    broken: int = 0
    """Rows that may hold infinity or NaN now, in value or state."""
    clamped: int = 0
    """Rows of half precision whose value was beyond 65504, and is that now."""


class ArenaRows(Protocol):
    """Rows by slot. A slot is given a row by `place`, has one until `free`, and is in neither if it is negative."""

    max_rows: int
    """The most rows that can be asked for."""
    lengths: list[int]
    """Bytes that a row may have; those of a new one first."""
    ram_bytes: int
    """Bytes of a new row that are in RAM."""
    purpose: str
    """What `committed_bytes` are called where memory is explained: "rows" if they are in RAM."""

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """Makes room for so many rows of that length, in slots below `slots_end`. Raises ResourceExhausted."""

    def place(self, slots_N: Slots, length: int) -> None:
        """Gives slots rows of that length, for which there is room. Their bytes are undefined."""

    def free(self, slots_N: Slots) -> None:
        """Takes the rows of slots back; needs no memory."""

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """Moves rows to other slots, which have none; the memory that `place` gave to the old slots goes along."""

    def shrink(self, slots_end: int) -> None:
        """There are no rows in slots from `slots_end` on: gives memory back."""

    def gather(self, slots_N: Slots, ids_N: Ids, out_ND: Rows) -> None:
        """Reads values; where the slot is -1, the initial value of the id."""

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """Sets values, or with them the whole rows if these are all float32; slot -1 is skipped. Returns how many rows
        of half precision were given more than they hold, which is 65504 then."""

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """Applies one push's gradients to unique slots: of this shard the `push`th, of the optimizer the `step`th. Two
        threads may do so at once with different slots."""

    def train_with(self, optimizer: Optimizer) -> None:
        """Has updates from now on use this optimizer: of the kind that the rows were made with, other settings."""

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """Returns the rows as they are: for each length that occurs, positions in `slots_N` and bytes."""

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """Overwrites the rows in these slots, also if they had another length: there is room."""

    def values(self, rows_NB: Bytes) -> Rows:
        """Returns the values, [n, dim], of rows of any length."""

    def as_full(self, rows_NB: Bytes) -> Bytes:
        """Returns rows of any length as float32 ones."""

    def attribute(self, slots_N: Slots, grads_ND: Rows, out_N: Rows) -> None:
        """Returns |gradient . value| of each slot."""

    @property
    def committed_bytes(self) -> int:
        """Bytes of float32 rows that are committed."""

    @property
    def metadata_bytes(self) -> int:
        """Bytes of the arrays that tell where rows are."""

    def close(self) -> None:
        """Gives the memory back."""


class Initializer(Protocol):
    """Gives the values of ids that have no row."""

    def gather(
        self, rows_SW: npt.NDArray[np.float32], slots_N: Slots, ids_N: Ids, out_ND: npt.NDArray[np.float32]
    ) -> None:
        """Copies the value of each slot; where the slot is -1, the initial value of the id."""

    def fill(self, ids_N: Ids, out_ND: npt.NDArray[np.float32]) -> None:
        """Writes the initial values of the ids."""


class PlainRows:
    """float32 rows, each at its slot."""

    purpose = "rows"

    def __init__(
        self,
        config: TableConfig,
        rule: UpdateRule,
        memory: Memory | None = None,
        initializer: Initializer | None = None,
    ) -> None:
        """`initializer`: by default the table's."""
        self._layout = RowLayout(config.dim, rule.state_width)
        self._initializer = initializer or RowInitializer.of(config)
        self._rule = rule
        self.lengths = [self._layout.row_bytes]
        self.ram_bytes = self._layout.row_bytes
        self.max_rows = max_rows(self._layout.row_bytes)
        self._rows = ReservedArray((self._layout.width,), np.float32, self.max_rows, memory)

    def make_room(self, slots_end: int, rows: int, length: int) -> None:
        """See `ArenaRows`."""
        self._rows.ensure(slots_end)

    def place(self, slots_N: Slots, length: int) -> None:
        """Does nothing: a slot is a place."""

    def free(self, slots_N: Slots) -> None:
        """Does nothing: a slot is a place."""

    def move(self, from_N: Slots, to_N: Slots) -> None:
        """See `ArenaRows`."""
        step = max(MOVE_BYTES // self._layout.row_bytes, 1)
        for start in range(0, len(from_N), step):
            part = slice(start, start + step)
            self._rows.array[to_N[part]] = self._rows.array[from_N[part]]

    def shrink(self, slots_end: int) -> None:
        """See `ArenaRows`."""
        self._rows.shrink(slots_end)

    def gather(self, slots_N: Slots, ids_N: Ids, out_ND: Rows) -> None:
        """See `ArenaRows`."""
        self._initializer.gather(self._rows.array, slots_N, ids_N, out_ND)

    def set(self, slots_N: Slots, rows_ND: Rows) -> int:
        """See `ArenaRows`."""
        scatter(self._rows.array, slots_N, rows_ND)
        return 0

    def update(self, slots_N: Slots, ids_S: Ids, grads_ND: Rows, push: int, step: int) -> Updated:
        """See `ArenaRows`."""
        return Updated(self._rule.update(self._rows.array, slots_N, grads_ND, step))

    def train_with(self, optimizer: Optimizer) -> None:
        """See `ArenaRows`."""
        self._rule = update_rule(optimizer, self._layout.dim)

    def copies(self, slots_N: Slots) -> list[tuple[npt.NDArray[np.int64], Bytes]]:
        """See `ArenaRows`."""
        if not len(slots_N):
            return []
        return [(np.arange(len(slots_N)), self._rows.array[slots_N].view(np.uint8))]

    def put(self, slots_N: Slots, rows_NB: Bytes) -> None:
        """See `ArenaRows`."""
        self._rows.array[slots_N] = rows_NB.view(np.float32)

    def values(self, rows_NB: Bytes) -> Rows:
        """See `ArenaRows`."""
        return rows_NB.view(np.float32)[:, : self._layout.dim]

    def as_full(self, rows_NB: Bytes) -> Bytes:
        """See `ArenaRows`."""
        return rows_NB

    def attribute(self, slots_N: Slots, grads_ND: Rows, out_N: Rows) -> None:
        """See `ArenaRows`."""
        attribute(self._rows.array, slots_N, grads_ND, out_N)

    @property
    def committed_bytes(self) -> int:
        """See `ArenaRows`."""
        return self._rows.committed_bytes

    @property
    def metadata_bytes(self) -> int:
        """Bytes of arrays that tell where rows are: there are none."""
        return 0

    def close(self) -> None:
        """See `ArenaRows`."""
        self._rows.close()


def max_rows(row_bytes: int) -> int:
    """Returns how many rows of that length, with what they cost beside it, this host could hold at all."""
    return min(host_ram_bytes() // (row_bytes + ROW_OVERHEAD_BYTES), MAX_SLOT + 1)
