"""A process that has one or all shards of a service with a log: it says where it listens, and ends when it is killed,
or in order when its input ends."""

from __future__ import annotations

import sys

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.durability.origin import Origin
from ps.server.shard_server import ShardServer


def config(path: str, mode: str, checkpoints: str) -> ps.ServiceConfig:
    return ps.ServiceConfig(
        watching={"metrics": False},
        log={"mode": mode, "path": path, "segment_bytes": "1MiB"},
        checkpoint={"path": checkpoints or None},
    )


def main(path: str, mode: str, checkpoints: str, shards: str, port: str) -> None:
    settings, n = config(path, mode, checkpoints), int(shards)
    servers = [ShardServer(k, settings, alone=False, origin=Origin(n, "default")) for k in range(n)]
    coordinator = Coordinator(settings, int(port))

    def tell(routing):  # type: ignore[no-untyped-def]
        for server in servers:
            server.set_routing(routing)

    coordinator.assemble([server.info for server in servers], tell)
    print(coordinator.address, flush=True)
    sys.stdin.read()
    coordinator.stop()
    for server in servers:
        server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
