"""The protocol of a table's cold tier, which decides about rows that are not hot, and about ids that have no row.

Every table has a cold tier, so no code tests for it. `Cold` itself is that of a table without cold rows; a kind
overrides the methods that differ. The engine thread is the only caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ps.arrays import Ids, Rows, Slots
from ps.config import TableConfig
from ps.kept import KeepsNothing
from ps.storage.tier import Records
from ps.table.counters import Counters

BytesByTier = dict[str, dict[str, int]]
"""Bytes by tier and purpose."""


class Cold(KeepsNothing):
    """The cold tier of one table."""

    reserved: int = 0
    """How many rows may have to stay in RAM whatever others need."""

    def __init__(self, counts: Counters) -> None:
        self._counts = counts

    # before a write

    def check(self, ids_N: Ids) -> None:
        """Raises InvalidArgument for ids that the table cannot have."""

    def before_write(self, slots_N: Slots, new: int) -> None:
        """Prepares rows that are about to be written, beside `new` rows that are about to be created. A slot of -1 has
        no row. Raises ResourceExhausted; then no row reads otherwise than before."""

    def plan_refused(self, ids_N: Ids, gradients: Callable[[], Rows]) -> Callable[[int], int]:
        """Plans the use of a push's gradients of ids that have no row. The function that it returns is called with the
        optimizer's step when the push is applied, and returns how many slices of cores may not be finite then."""

        def refuse(step: int) -> int:
            self._counts.rows_refused += len(ids_N)
            return 0

        return refuse

    def plan_optimizer(self, config: TableConfig) -> Callable[[], None]:
        """Plans to train what is cold, and is no row, as this configuration says."""
        return lambda: None

    # during and after a write

    def created(self, ids_N: Ids, slots_N: Slots) -> None:
        """Notes that rows of these ids have just been given slots."""

    def pushed(self, slots_N: Slots) -> None:
        """Does the work that is due for the rows of a push that has ended: promotion, folding."""

    def tick(self) -> None:
        """Decides again which rows are cold, after the table's clock has moved to another tick."""

    def moved(self) -> None:
        """Notes that rows have gone to other slots."""

    def sweep(self) -> bool:
        """Carries out a little of what was decided; returns whether there was anything to do."""
        return False

    # where rows are looked at

    def round(self, slots_N: Slots, out_ND: Rows) -> None:
        """Changes values that were read from these slots, -1 for none, to the values that readers must see."""

    def as_seen(self, found: Iterable[Records]) -> list[Records]:
        """Returns rows that were copied from RAM or read from disk, as readers must see them."""
        return list(found)

    # numbers

    def wanted_rows(self, total: int, usual: int) -> int:
        """Returns how many of `total` rows belong in RAM, if `usual` of them would in a table without a cold tier."""
        return usual

    def rows_by_tier(self) -> dict[str, int]:
        """Returns how many rows in RAM are cold, by tier; empty where there is no such tier."""
        return {}

    def heap_bytes(self) -> int:
        """Returns how many bytes of `memory_usage` are the allocator's, not in arrays that grow."""
        return 0

    def memory_usage(self) -> BytesByTier:
        """Returns the bytes of the cold tier."""
        return {}

    def stats(self) -> dict[str, object] | None:
        """Returns how the cores of a tensor-train table are factored; None for other tables."""
        return None
