"""The RAM that a table takes however many rows it has, by purpose: all of it that is not in arrays by slot.

It is computed from the configuration before it is allocated: the budget grants it, or the table is refused. Everything
that a table has beside its rows belongs on this list; `tests/unit/test_table_bytes.py` weighs a table against it.
"""

from __future__ import annotations

from ps.config import TableConfig, TensorTrain
from ps.kept import KeptState
from ps.policy import lifting
from ps.policy.admission import gate_bytes
from ps.policy.ranking import ranking_bytes
from ps.storage.budget.budget import RamBudget
from ps.table.cold.cores import cores_bytes

DISK_BYTES = 96 << 10
"""Bytes of RocksDB's column family before it has rows. Measured."""
STEP_BYTES = 64 << 10
"""How many bytes the budget grants at once for what is remembered of workers."""


class Beside:
    """The bytes that one table holds of the budget beside its rows. Used by the engine thread."""

    def __init__(self, config: TableConfig, has_disk: bool, budget: RamBudget) -> None:
        """Takes the bytes before they are allocated; the cores of a tensor-train table take theirs themselves. Raises
        ResourceExhausted, and then nothing is held."""
        parts = fixed_bytes(config, has_disk)
        fixed = sum(parts.values()) - parts["cores"]
        # As much is to be left for rows. The cores have asked for the rows of their table.
        budget.hold(fixed, 0 if parts["cores"] else fixed, *refusal(config))
        self._budget = budget
        self._held = fixed
        self._of_workers = 0

    def workers_take(self, nbytes: int) -> None:
        """Notes that what is remembered of workers has come to so many bytes."""
        if nbytes >= self._of_workers + STEP_BYTES:
            self._of_workers += STEP_BYTES
            self._held += STEP_BYTES
            self._budget.hold_anyway(STEP_BYTES)

    def state(self) -> KeptState:
        """See `ps.kept`: how many rows there is room for follows from it."""
        return {"of_workers": self._of_workers}

    def restore(self, state: KeptState) -> None:
        """See `ps.kept`."""
        self._of_workers = state["of_workers"]
        self._held += self._of_workers
        self._budget.hold_anyway(self._of_workers)

    def close(self) -> None:
        """Gives the bytes back."""
        held, self._held = self._held, 0
        self._budget.let_go(held)


def fixed_bytes(config: TableConfig, has_disk: bool) -> dict[str, int]:
    """Returns bytes by purpose, as `Table.memory_usage` names them; those of the disk are RocksDB's own."""
    cold = config.cold if isinstance(config.cold, TensorTrain) else None
    return {
        "ranking": ranking_bytes(config.expire_after_pushes),
        "admission": gate_bytes(config) if cold is None else lifting.gate_bytes(cold),
        "cores": 0 if cold is None else cores_bytes(config, cold),
        "disk": DISK_BYTES if has_disk else 0,
    }


def refusal(config: TableConfig) -> tuple[str, str]:
    """Returns in words what there is no room for, and the remedy."""
    if isinstance(config.cold, TensorTrain):
        return f"the cores of table {config.name} and its hot_rows", "raise it, or lower hot_rows or ranks"
    if gate_bytes(config) > ranking_bytes(config.expire_after_pushes):
        return (
            f"the sketch of table {config.name} and as much for rows",
            "raise it, or have fewer cells (CountThreshold.cells)",
        )
    return f"the ranks of table {config.name}", "raise it, drop tables or add shards"
