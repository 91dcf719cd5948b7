"""The Ray actors: a coordinator and the shards, found by name in a namespace.

Ray restarts an actor whose process dies. A coordinator rebuilds itself from the shards. A shard has lost its rows: it
comes back refusing pulls and pushes with StateLost, so that nobody trains on against rows that silently start anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import ray

from ps.cluster.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.server.shard_server import ShardServer
from ps.wire.routing import Routing, ShardInfo

NAMESPACE = "embedding-ps"
AUTO_HOST = "auto"

log = logging.getLogger(__name__)


def coordinator_name(service: str) -> str:
    """The actor's name."""
    return f"{service}/coordinator"


def shard_name(service: str, shard_id: int) -> str:
    """The actor's name."""
    return f"{service}/shard-{shard_id}"


def _resolve_host(config: ServiceConfig) -> ServiceConfig:
    """ "auto" becomes the address of the node that the actor runs on, which the driver cannot know."""
    if config.host != AUTO_HOST:
        return config
    return config.model_copy(update={"host": ray.util.get_node_ip_address()})


class CoordinatorActor:
    """Runs the coordinator."""

    def __init__(self, service: str, shards: int, config: ServiceConfig, port: int) -> None:
        self._service = service
        self._coordinator = Coordinator(_resolve_host(config), port)
        if ray.get_runtime_context().was_current_actor_reconstructed:
            handles = [ray.get_actor(shard_name(service, i), namespace=NAMESPACE) for i in range(shards)]
            self.assemble(ray.get([handle.info.remote() for handle in handles]))

    def address(self) -> str:
        """Where clients connect."""
        return self._coordinator.address

    def assemble(self, shards: Sequence[ShardInfo]) -> Routing:
        """All shards are up; they are told the routing table."""
        routing = self._coordinator.assemble(shards)
        self._tell(routing)
        return routing

    def restarted(self, shard: ShardInfo) -> Routing:
        """Called by a shard that came back."""
        routing = self._coordinator.replace_shard(shard)
        self._tell(routing, but=shard.shard_id)
        return routing

    def routing(self) -> Routing:
        """As clients see it."""
        return self._coordinator.routing

    def stop(self) -> None:
        """Drains."""
        self._coordinator.stop()

    def _tell(self, routing: Routing, but: int = -1) -> None:
        for shard in routing.shards:
            if shard.shard_id != but:
                handle = ray.get_actor(shard_name(self._service, shard.shard_id), namespace=NAMESPACE)
                handle.set_routing.remote(routing)


class ShardActor:
    """Runs one shard's server."""

    def __init__(self, service: str, shard_id: int, config: ServiceConfig) -> None:
        self._server = ShardServer(shard_id, _resolve_host(config))
        self._state = "SERVING"
        if ray.get_runtime_context().was_current_actor_reconstructed:
            self._state = "STATE_LOST"
            self._server.mark_state_lost(
                f"shard {shard_id} was restarted and its rows are gone: stop training, restart the service "
                "(psctl down, psctl up) and load your last export"
            )
            coordinator = ray.get_actor(coordinator_name(service), namespace=NAMESPACE)
            self.set_routing(ray.get(coordinator.restarted.remote(self.info())))

    def info(self) -> ShardInfo:
        """Where it listens and how it fares."""
        info = self._server.info
        return ShardInfo(info.shard_id, info.address, info.metrics_address, self._state)

    def set_routing(self, routing: Routing) -> None:
        """From the coordinator."""
        self._server.set_routing(routing)

    def stop(self) -> None:
        """Drains."""
        self._server.stop()


def start_coordinator(service: str, shards: int, config: ServiceConfig, port: int, lifetime: str | None) -> Any:
    """The actor's handle. It does no work worth reserving a CPU for."""
    options = {"name": coordinator_name(service), "namespace": NAMESPACE, "lifetime": lifetime}
    return (
        ray.remote(CoordinatorActor)
        .options(num_cpus=0, max_restarts=-1, **options)
        .remote(service, shards, config, port)
    )


def start_shard(service: str, shard_id: int, config: ServiceConfig, cpus: float, lifetime: str | None) -> Any:
    """The actor's handle."""
    options = {"name": shard_name(service, shard_id), "namespace": NAMESPACE, "lifetime": lifetime}
    return ray.remote(ShardActor).options(num_cpus=cpus, max_restarts=-1, **options).remote(service, shard_id, config)
