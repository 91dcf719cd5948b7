"""The configuration of a service: the settings of each of its shards and of its coordinator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import field_validator

from ps.config import yaml_file
from ps.config.checkpoint import CheckpointConfig
from ps.config.disk import DiskConfig
from ps.config.limits import LimitsConfig
from ps.config.log import LogConfig
from ps.config.memory import MemoryConfig
from ps.config.network import NetworkConfig
from ps.config.performance import PerformanceConfig
from ps.config.watching import WatchingConfig
from ps.errors import ConfigError
from ps.values.frozen import Frozen

PARTITIONS = 4096
"""Hash partitions of the id space: the unit that moves between shards."""

_PARTS: dict[str, type[Frozen]] = {
    "network": NetworkConfig,
    "limits": LimitsConfig,
    "memory": MemoryConfig,
    "disk": DiskConfig,
    "log": LogConfig,
    "checkpoint": CheckpointConfig,
    "watching": WatchingConfig,
    "performance": PerformanceConfig,
}
_NEW = ("log", "checkpoint")
"""Parts whose settings never stood at the top."""


class ServiceConfig(Frozen):
    """The settings of every shard of a service and of its coordinator. The defaults suit one host; a limit that is
    exceeded raises a typed error. Sizes are numbers of bytes or texts: 8GiB is 8 x 1024^3 bytes, 8GB is 8 x 1000^3."""

    elsewhere: ClassVar[Mapping[str, str]] = {
        **{
            name: f"{part}.{name}"
            for part, model in _PARTS.items()
            if part not in ("log", "checkpoint")
            for name in model.model_fields
        },
        "disk_path": "disk.path",
        "disk_bytes": "disk.max_bytes",
        "checkpoint_every_s": "checkpoint.every_s",
    }
    """Old names of settings, without their part -> where the setting is now."""

    network: NetworkConfig = NetworkConfig()
    """Where shards and coordinator listen, and how long they wait for a client."""
    limits: LimitsConfig = LimitsConfig()
    """What clients may ask of a shard at once. More is refused, with an error that names the limit."""
    memory: MemoryConfig = MemoryConfig()
    """The memory that a shard may use, in RAM and on a GPU."""
    disk: DiskConfig = DiskConfig()
    """Where a shard keeps rows on disk, and how many."""
    log: LogConfig = LogConfig()
    """Where a shard logs its writes, so that they outlive it."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Where the service keeps its checkpoints, and how often it makes one."""
    watching: WatchingConfig = WatchingConfig()
    """How a service is watched: metrics, logs, traces."""
    performance: PerformanceConfig = PerformanceConfig()
    """Settings that change how fast a shard is and what RAM it takes, never what it answers."""

    @field_validator(*_PARTS, mode="before")
    @classmethod
    def _nothing_is_defaults(cls, part: object) -> object:
        return {} if part is None else part  # `memory:` in YAML with every line below it commented out

    def having(self, **parts: Mapping[str, object]) -> Self:
        """Returns a copy that differs in these settings: `having(memory={"ram_bytes": 1 << 30})`. Raises
        ConfigError."""
        values: dict[str, Any] = self.model_dump()
        return type(self)(**(values | {name: {**values.get(name, {}), **part} for name, part in parts.items()}))

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Returns the configuration in a YAML file. Raises ConfigError for an unknown key or broken YAML, NotFound for
        a file that cannot be read."""
        values: Any = yaml_file.load(path) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
        return cls(**values)
