"""embedding-ps: a tiered, distributed parameter server for recommender embeddings.

The public names, imported when first used: `import ps` loads neither numba nor torch nor ray.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ps.client.bound import Versions
    from ps.client.client import Client, connect
    from ps.client.reads.pulled import TableRows
    from ps.client.step import Step
    from ps.client.writes.evict import Evicted
    from ps.cluster.ray.deployment import Placement
    from ps.cluster.ray.launch import Service, launch
    from ps.config import (
        FTRL,
        SGD,
        Adagrad,
        Adam,
        Always,
        CheckpointConfig,
        Constant,
        CountThreshold,
        DiskConfig,
        Fp16,
        Importance,
        LimitsConfig,
        LogConfig,
        MemoryConfig,
        NetworkConfig,
        Normal,
        PerformanceConfig,
        Probability,
        RowwiseAdagrad,
        ServiceConfig,
        TableConfig,
        TensorTrain,
        Uniform,
        WatchingConfig,
    )
    from ps.errors import (
        CheckpointCorrupt,
        ConfigError,
        CorruptRow,
        CorruptWrite,
        DataLoss,
        DeadlineExceeded,
        DimensionMismatch,
        DiskError,
        DiskFull,
        DtypeMismatch,
        DuplicateIds,
        InternalError,
        InvalidArgument,
        LengthMismatch,
        LogCorrupt,
        LogFailed,
        NonFiniteGradient,
        NotFound,
        PsError,
        ResourceExhausted,
        RolledBack,
        SequenceConflict,
        ShardPoisoned,
        StaleRouting,
        StateLost,
        StepNotFound,
        TableExists,
        TableNotFound,
        Unavailable,
    )
    from ps.round import Round
    from ps.wire.bags import PooledBags
    from ps.wire.formats import ByImportance
    from ps.wire.selected import PooledGradients, Selected

__version__ = "0.1.0"

__all__ = [
    "FTRL",
    "SGD",
    "Adagrad",
    "Adam",
    "Always",
    "ByImportance",
    "CheckpointConfig",
    "CheckpointCorrupt",
    "Client",
    "ConfigError",
    "Constant",
    "CorruptRow",
    "CorruptWrite",
    "CountThreshold",
    "DataLoss",
    "DeadlineExceeded",
    "DimensionMismatch",
    "DiskConfig",
    "DiskError",
    "DiskFull",
    "DtypeMismatch",
    "DuplicateIds",
    "Evicted",
    "Fp16",
    "Importance",
    "InternalError",
    "InvalidArgument",
    "LengthMismatch",
    "LimitsConfig",
    "LogConfig",
    "LogCorrupt",
    "LogFailed",
    "MemoryConfig",
    "NetworkConfig",
    "NonFiniteGradient",
    "Normal",
    "NotFound",
    "PerformanceConfig",
    "Placement",
    "PooledBags",
    "PooledGradients",
    "Probability",
    "PsError",
    "ResourceExhausted",
    "RolledBack",
    "Round",
    "RowwiseAdagrad",
    "Selected",
    "SequenceConflict",
    "Service",
    "ServiceConfig",
    "ShardPoisoned",
    "StaleRouting",
    "StateLost",
    "Step",
    "StepNotFound",
    "TableConfig",
    "TableExists",
    "TableNotFound",
    "TableRows",
    "TensorTrain",
    "Unavailable",
    "Uniform",
    "Versions",
    "WatchingConfig",
    "connect",
    "launch",
]

_HOMES = {
    "ps.client.bound": ("Versions",),
    "ps.client.client": ("Client", "connect"),
    "ps.client.writes.evict": ("Evicted",),
    "ps.client.reads.pulled": ("TableRows",),
    "ps.client.step": ("Step",),
    "ps.cluster.ray.deployment": ("Placement",),
    "ps.cluster.ray.launch": ("Service", "launch"),
    "ps.round": ("Round",),
    "ps.wire.formats": ("ByImportance",),
    "ps.wire.bags": ("PooledBags",),
    "ps.wire.selected": ("PooledGradients", "Selected"),
    "ps.config": (
        *("FTRL", "SGD", "Adagrad", "Adam", "RowwiseAdagrad", "Constant", "Normal", "Uniform"),
        *("Importance", "Always", "CountThreshold", "Probability"),
        *("Fp16", "TensorTrain"),
        *("ServiceConfig", "TableConfig"),
        *(
            "NetworkConfig",
            "LimitsConfig",
            "MemoryConfig",
            "DiskConfig",
            "CheckpointConfig",
            "LogConfig",
            "WatchingConfig",
            "PerformanceConfig",
        ),
    ),
}
_HOME_OF_NAME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'ps' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF_NAME.get(name, "ps.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
