"""The state of a Ray cluster, for checks that look for what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from ps.cluster.ray.joining import join
from ps.cluster.ray.launch import find_actors


@dataclass(frozen=True)
class RayState:
    """The state of one cluster."""

    nodes: int
    dead_nodes: int
    resources: Mapping[str, float]
    """Resources of all live nodes, by name: "CPU", "memory", ..."""
    available: Mapping[str, float]
    """Resources that nobody has reserved, by name."""
    actors: int
    """How many actors the service that was asked for has: its shards and its coordinator."""


def ray_state(ray_address: str, service: str) -> RayState:
    """Joins the cluster, reads its state, and leaves. Raises Unavailable if there is no cluster."""
    join(ray_address)
    try:
        nodes = ray.nodes()
        alive = sum(bool(node["Alive"]) for node in nodes)
        return RayState(
            alive, len(nodes) - alive, ray.cluster_resources(), ray.available_resources(), len(find_actors(service))
        )
    finally:
        ray.shutdown()
