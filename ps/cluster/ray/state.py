"""What a Ray cluster says of itself, for those who look for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from ps.cluster.ray.launch import find_actors, join


@dataclass(frozen=True)
class RayState:
    """Of one cluster."""

    nodes: int
    dead_nodes: int
    resources: Mapping[str, float]
    """Of all nodes that live, by name: "CPU", "memory", ..."""
    available: Mapping[str, float]
    """What of it nobody has reserved."""
    actors: int
    """Of the service that was asked for: its shards and its coordinator."""


def ray_state(ray_address: str, service: str) -> RayState:
    """Joins the cluster, looks, and leaves. Raises Unavailable if there is none."""
    join(ray_address)
    try:
        nodes = ray.nodes()
        alive = sum(bool(node["Alive"]) for node in nodes)
        return RayState(
            alive, len(nodes) - alive, ray.cluster_resources(), ray.available_resources(), len(find_actors(service))
        )
    finally:
        ray.shutdown()
