"""Runs one shard in a process of its own: python -m benchmarks.harness.server SHARD_ID [ServiceConfig as JSON]

Prints its address. On stdin: a line with a routing table (hex of the message) is adopted; the end of the file ends it.
"""

from __future__ import annotations

import sys

from ps.config import ServiceConfig
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2
from ps.wire.routing import Routing


def main(shard_id: int, settings: str = "{}") -> None:
    """Serves until stdin ends."""
    with ShardServer(shard_id, ServiceConfig.from_json(settings)) as server:
        print(server.address, flush=True)
        for line in sys.stdin:
            server.set_routing(Routing.from_proto(control_pb2.Routing.FromString(bytes.fromhex(line))))
            print("adopted", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
