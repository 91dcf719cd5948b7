"""Starts a service of shard processes, with this process as its client."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import ps
from benchmarks.harness.processes import Child, child
from ps.arrays import Ids
from ps.cluster.coordinator.coordinator import Coordinator
from ps.wire.routing import Routing, ShardInfo

PREPARE_TIMEOUT_S = 30.0


@contextmanager
def one_shard(config: ps.ServiceConfig | None = None) -> Iterator[tuple[ps.Client, Child]]:
    """Starts a shard that is the whole service, and a client."""
    settings = (config or ps.ServiceConfig()).to_json()
    with child("benchmarks.harness.server", "0", settings) as server, ps.connect(server.address) as client:
        yield client, server


@contextmanager
def shards(count: int) -> Iterator[ps.Client]:
    """Starts a coordinator in this process and shards in others, and returns a client."""
    with cluster(count, ps.ServiceConfig()) as (coordinator, _), ps.connect(coordinator.address) as client:
        yield client


@contextmanager
def cluster(count: int, config: ps.ServiceConfig) -> Iterator[tuple[Coordinator, list[Child]]]:
    """Starts a coordinator in this process and the processes of its shards."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(child("benchmarks.harness.server", str(i), config.to_json())) for i in range(count)
        ]
        coordinator = Coordinator(config)
        stack.callback(coordinator.stop)

        def tell(routing: Routing) -> None:
            for server in servers:
                server.ask(routing.to_proto().SerializeToString().hex())

        coordinator.assemble([_info(server) for server in servers], tell)
        yield coordinator, servers


def _info(server: Child) -> ShardInfo:
    """Returns a shard's address and id. A shard is a service of its own until it is told of others."""
    with ps.connect(server.address) as client:
        (info,) = client.shards()
        return info


def fill(client: ps.Client, table: str, ids_N: Ids, dim: int, batch: int) -> None:
    """Makes the rows exist, by pushes as in training."""
    from benchmarks.harness.data import generator, gradients

    grads_ND = gradients(generator(), batch, dim)
    for start in range(0, len(ids_N), batch):
        part_N = ids_N[start : start + batch]
        client.push(table, part_N, grads_ND[: len(part_N)])


def prepared(client: ps.Client, ids: Mapping[str, Ids]) -> ps.Step:
    """Returns a step that a service of one shard has prepared already: the state in which a trainer's pull finds it."""
    before = _steps_prepared(client)
    step = client.prepare(ids)
    deadline = time.monotonic() + PREPARE_TIMEOUT_S
    while _steps_prepared(client) == before:
        if time.monotonic() > deadline:
            raise TimeoutError("the shard never counted the prepare")
    return step


def _steps_prepared(client: ps.Client) -> int:
    return sum(int(shard["steps_prepared"]) for shard in client.stats()["shards"])
