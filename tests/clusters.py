"""A cluster on loopback without Ray: real shard servers and a real coordinator in this process."""

from __future__ import annotations

from typing import Self

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.durability.origin import Origin
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.runtime.files import Files
from ps.server.shard_server import ShardServer
from ps.wire.routing import Routing


class LoopbackCluster:
    """`shards` gRPC servers and a coordinator; `address` is the coordinator's, on `port` if one is given."""

    def __init__(
        self,
        shards: int,
        config: ps.ServiceConfig | None = None,
        port: int = 0,
        files: Files | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """files: of log and checkpoints, of all. clock: the coordinator's."""
        config = config or ps.ServiceConfig()
        origin = Origin(shards)
        self.servers = [
            ShardServer(number, config, alone=False, files=files, origin=origin) for number in range(shards)
        ]
        self.coordinator = Coordinator(config, port, files=files, clock=clock)
        self.coordinator.assemble([server.info for server in self.servers], self.tell)
        self.address = self.coordinator.address

    def tell(self, routing: Routing) -> None:
        """What the actors do: every shard is handed the table."""
        for server in self.servers:
            server.set_routing(routing)

    def stop(self) -> None:
        """Drains everything."""
        self.coordinator.stop()
        for server in self.servers:
            server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
