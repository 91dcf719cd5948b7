"""Starts the actors of a service where Ray has room for them: the coordinator on the head node, shards in bundles."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.util import get_placement_group, placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ps.cluster.ray.actors import NAMESPACE, CoordinatorActor, ShardActor, coordinator_name, shard_name
from ps.cluster.ray.deployment import Placement
from ps.config import ServiceConfig

HEAD = "node:__internal_head__"
"""The resource that Ray gives to the head node."""
HEAD_SHARE = 0.001


def group_name(service: str) -> str:
    """Returns the name of the placement group."""
    return f"{service}/shards"


def start_coordinator(service: str, shards: int, config: ServiceConfig, port: int, lifetime: str | None) -> Any:
    """Starts the coordinator and returns its actor's handle. It runs on the head node, whose address clients know, and
    needs no CPU of its own."""
    options = {"name": coordinator_name(service), "namespace": NAMESPACE, "lifetime": lifetime}
    on_head = {HEAD: HEAD_SHARE} if HEAD in ray.cluster_resources() else {}
    return (
        ray.remote(CoordinatorActor)
        .options(num_cpus=0, resources=on_head, max_restarts=-1, **options)
        .remote(service, shards, config, port)
    )


def reserve(service: str, shards: int, placement: Placement, lifetime: str | None) -> PlacementGroup:
    """Reserves room for all shards or for none. Ray finds it now or when there are nodes for it, and again for the
    shards of a node that dies."""
    return placement_group(
        [placement.bundle] * shards, strategy=placement.strategy, name=group_name(service), lifetime=lifetime
    )


def release(service: str) -> None:
    """Gives the reserved room back, if there is any."""
    with suppress(ValueError):  # there is no such group
        remove_placement_group(get_placement_group(group_name(service)))


def start_shard(
    service: str, shard_id: int, shards: int, config: ServiceConfig, group: PlacementGroup, lifetime: str | None
) -> Any:
    """Starts a shard in its bundle of the group and returns its actor's handle. Ray restarts it there."""
    bundle = group.bundle_specs[shard_id]
    own = {name: amount for name, amount in bundle.items() if name not in ("CPU", "GPU")}
    return (
        ray.remote(ShardActor)
        .options(
            name=shard_name(service, shard_id),
            namespace=NAMESPACE,
            lifetime=lifetime,
            max_restarts=-1,
            num_cpus=bundle.get("CPU", 0),
            num_gpus=bundle.get("GPU", 0),
            resources=own,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=shard_id),
        )
        .remote(service, shard_id, shards, config)
    )
