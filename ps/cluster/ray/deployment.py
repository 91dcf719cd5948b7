"""What to launch and where: the `launch` part of a service file, beside the settings of `ps.ServiceConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ps.config import Frozen, Positive, Seconds, ServiceConfig, yaml_file
from ps.errors import ConfigError

LAUNCH_TIMEOUT_S = 120.0

Amount = Annotated[float, Field(ge=0)]


class Placement(Frozen):
    """What one shard reserves of its node, and how shards are spread over the nodes: a bundle of Ray's placement group.

    A shard whose process dies comes back on its node. One whose node dies comes back on another that has room for it.
    """

    cpus: Amount = 1.0
    gpus: Amount = 0.0
    """GPUs that a shard reserves. A service that has tables with `device: cuda` needs them: Ray hides the GPUs from
    whoever reserves none."""
    resources: dict[str, Positive] = Field(default={})
    """Custom resources that a shard reserves, of those that nodes were started with. Shards run only on nodes that have
    them."""
    strategy: Literal["SPREAD", "STRICT_SPREAD", "PACK", "STRICT_PACK"] = "SPREAD"
    """How Ray spreads the shards: SPREAD evenly over the nodes as far as there is room; STRICT_SPREAD at most one on
    each node; PACK on few nodes; STRICT_PACK all on one node."""

    @model_validator(mode="after")
    def _reserves_something(self) -> Self:
        if not self.bundle:
            raise ValueError("a shard that reserves nothing cannot be placed: set cpus, gpus or resources")
        return self

    @property
    def bundle(self) -> dict[str, float]:
        """The bundle that Ray is asked for, for each shard."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, **self.resources}
        return {name: amount for name, amount in asked.items() if amount}

    def __str__(self) -> str:
        asked = {"CPUs": self.cpus, "GPUs": self.gpus, **self.resources}
        return ", ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount) or "nothing"


class Launch(Frozen):
    """How many shards to launch, where, and on which port clients find them."""

    shards: Annotated[int, Field(ge=1)] = 1
    """The number of shards: about one for each CPU core that is to work for the service."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    """The coordinator's port on the head node, to which clients connect. 0 takes any free one."""
    placement: Placement = Placement()
    """What each shard reserves of its node."""
    timeout_s: Seconds = LAUNCH_TIMEOUT_S
    """How long to wait for the shards and for the nodes that they need. The time in which kernels are compiled before
    that does not count."""


class Deployment(Frozen):
    """A whole service file: its settings, and what to launch."""

    launch: Launch = Launch()
    service: ServiceConfig = ServiceConfig()

    @classmethod
    def of(cls, path: Path | None, **asked: Any) -> Self:
        """Reads a file, or takes the defaults without one; the fields in `asked` that are not None replace those of
        `launch`."""
        deployment = cls.from_yaml(path) if path else cls()
        launch = dict(deployment.launch) | {name: value for name, value in asked.items() if value is not None}
        return cls(launch=Launch(**launch), service=deployment.service)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML mapping: settings of ps.ServiceConfig, and below `launch` those of Launch. Raises ConfigError or
        NotFound."""
        values = _mapping(yaml_file.load(path), str(path))
        launch = _mapping(values.pop("launch", None), f"{path}: launch")
        return cls(launch=Launch(**launch), service=ServiceConfig(**values))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {type(value).__name__}")
    return value
