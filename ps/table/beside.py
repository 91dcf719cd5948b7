"""What a table takes of RAM however many rows it has, by purpose: all of it that is not in arrays by slot.

Told before it is taken, from the configuration alone: the budget gives it, or the table is refused. Whatever a table
gets that lives beside its rows belongs on this list; `tests/unit/test_table_bytes.py` weighs a table against it.
"""

from __future__ import annotations

from ps.config import TableConfig, TensorTrain
from ps.policy import lifting
from ps.policy.admission import gate_bytes
from ps.policy.ranking import ranking_bytes
from ps.storage.ram.tensor_train import cores_bytes

DISK_BYTES = 96 << 10
"""Of RocksDB's column family, before it has rows. Measured."""


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
    """What there is no room for, and what to do about it."""
    if isinstance(config.cold, TensorTrain):
        return f"the cores of table {config.name} and its hot_rows", "raise it, or lower hot_rows or ranks"
    if gate_bytes(config) > ranking_bytes(config.expire_after_pushes):
        return (
            f"the sketch of table {config.name} and as much for rows",
            "raise it, or have fewer cells (CountThreshold.cells)",
        )
    return f"the ranks of table {config.name}", "raise it, drop tables or add shards"
