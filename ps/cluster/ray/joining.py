"""Connects this process to Ray: to a running cluster, or to a local Ray that it starts."""

from __future__ import annotations

import logging
import os
import socket

import ray
from ray.exceptions import AuthenticationError

from ps.address import parse
from ps.cluster.ray import home as ray_home
from ps.cluster.ray.actors import NAMESPACE
from ps.cluster.ray.deployment import Launch
from ps.cluster.ray.quiet import hush_ray
from ps.errors import Unavailable

CONNECT_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 100 << 20
"""Size of the object store of a local Ray, little more than the minimum: rows travel by gRPC, never through Ray's
object store."""


def join(ray_address: str) -> None:
    """Connects this process to a running Ray cluster; raises Unavailable."""
    hush_ray()
    _check_listening(ray_address)
    ray_home.take_token()
    try:
        ray.init(address=ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, AuthenticationError) as error:
        raise Unavailable(f"no Ray cluster at {ray_address!r}: {error}; {ray_home.token_advice()}") from error


def _check_listening(ray_address: str) -> None:
    """Raises Unavailable if nobody listens at the address: Ray itself would retry for minutes."""
    if "://" in ray_address or ":" not in ray_address:
        return  # "auto" and "ray://..." are Ray's to resolve
    try:
        socket.create_connection(parse(ray_address), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise Unavailable(f"no Ray cluster at {ray_address!r}: {error}") from error


def join_any(ray_address: str | None) -> bool:
    """Connects to the Ray at the address, unless this process is connected already. Returns False if there is
    neither."""
    if ray.is_initialized():
        return True
    address = ray_address or os.environ.get("RAY_ADDRESS")
    if address:
        join(address)
    return bool(address)


def start_local(wanted: Launch) -> None:
    """Starts a local Ray that has all resources that the shards ask for."""
    placement, shards = wanted.placement, wanted.shards
    settings = ray_home.own()
    try:
        with ray_home.on_loopback():
            ray.init(
                address="local",
                namespace=NAMESPACE,
                num_cpus=max(os.cpu_count() or 1, int(shards * placement.cpus + 1)),
                resources={name: amount * shards for name, amount in placement.resources.items()},
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
                **settings,
            )
    except Exception as error:  # Ray raises plain Exception
        raise Unavailable(
            f"Ray did not start on this host: {error} Is the host overloaded? Ray's own logs are in "
            "ray/session_latest/logs of the temporary directory"
        ) from error


def all_resources() -> str:
    """Lists the resources that can be asked for, without those that Ray has for itself, for nodes and for groups."""
    hidden = ("node:", "memory", "object_store_memory", "accelerator_type:")
    found = {name: n for name, n in ray.cluster_resources().items() if not name.startswith(hidden)}
    shown = [f"{n:g} {name}" for name, n in sorted(found.items()) if "_group_" not in name]
    return ", ".join(shown) or "nothing"
