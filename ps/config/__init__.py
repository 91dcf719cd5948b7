"""Configuration: frozen, validated values. An unknown key or a value out of range is a `ConfigError` that names it.

This package has the names, defaults and bounds of settings, not their behaviour: `ps.optimizers` says what an optimizer
does, `ps.initializer` what an initializer yields. Every value can be written as JSON and read back, which is how it
crosses the wire.

    optimizers     SGD, Adagrad, RowwiseAdagrad, Adam, FTRL
    initializers   Uniform, Normal, Constant
    importance     Importance: which rows stay when not all can
    admission      Always, CountThreshold, Probability: which ids get a row
    cold           Fp16, TensorTrain: how the less important rows are stored
    table          TableConfig
    service        ServiceConfig, and its parts: network, limits, memory, disk, watching, performance
    sizes          numbers of bytes as people write them
    yaml_file      YAML files as people write them
"""

from __future__ import annotations

from ps.config.admission import Always, CountThreshold, Probability
from ps.config.checkpoint import CheckpointConfig
from ps.config.cold import Fp16, TensorTrain
from ps.config.disk import DiskConfig
from ps.config.importance import Importance
from ps.config.initializers import Constant, Normal, Uniform
from ps.config.limits import LimitsConfig
from ps.config.log import LogConfig
from ps.config.memory import MIN_RAM_BYTES, MemoryConfig
from ps.config.network import NetworkConfig
from ps.config.optimizers import FTRL, SGD, Adagrad, Adam, CoreOptimizer, Optimizer, RowwiseAdagrad
from ps.config.performance import PerformanceConfig
from ps.config.service import PARTITIONS, ServiceConfig
from ps.config.table import DEFAULT_HALF_LIFE_PUSHES, TableConfig, check_table_name
from ps.config.watching import WatchingConfig
from ps.values.frozen import MIN_FLOAT32, Frozen, Positive, Seconds

__all__ = [
    "DEFAULT_HALF_LIFE_PUSHES",
    "FTRL",
    "MIN_FLOAT32",
    "MIN_RAM_BYTES",
    "PARTITIONS",
    "SGD",
    "Adagrad",
    "Adam",
    "Always",
    "CheckpointConfig",
    "Constant",
    "CoreOptimizer",
    "CountThreshold",
    "DiskConfig",
    "Fp16",
    "Frozen",
    "Importance",
    "LimitsConfig",
    "LogConfig",
    "MemoryConfig",
    "NetworkConfig",
    "Normal",
    "Optimizer",
    "PerformanceConfig",
    "Positive",
    "Probability",
    "RowwiseAdagrad",
    "Seconds",
    "ServiceConfig",
    "TableConfig",
    "TensorTrain",
    "Uniform",
    "WatchingConfig",
    "check_table_name",
]
