"""A shard of `crash`: python -m benchmarks.durability.shard CONFIG SHARDS REACHED

It loads what it needs, says `ready`, and waits for what it is: the first line on stdin is `SHARD [POINT TIMES]`, and is
answered by its address. Then, a line each: `routing HEX`, `report`, `die POINT TIMES`. It ends when its stdin does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.durability.lines import packed
from benchmarks.durability.points import DyingFiles, Points, wrap
from ps.config import ServiceConfig
from ps.durability.origin import Origin
from ps.kernels import warm_up
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2
from ps.wire.routing import Routing

SERVICE = "default"
"""The name of the service: the coordinator's default."""


def main(settings: str, shards: str, reached: str) -> None:
    """Serves until stdin ends, or the point is reached."""
    points = Points(Path(reached))
    wrap(points)
    warm_up()
    print("ready", flush=True)
    first = sys.stdin.readline().split()
    if not first:
        return
    if first[1:]:
        points.arm(first[1], int(first[2]))
    config = ServiceConfig.from_json(settings)
    files, origin = DyingFiles(points), Origin(int(shards), SERVICE)
    with ShardServer(int(first[0]), config, alone=False, files=files, origin=origin) as server:
        print(server.address, flush=True)
        for line in sys.stdin:
            what, *given = line.split()
            if what == "routing":
                server.set_routing(Routing.from_proto(control_pb2.Routing.FromString(bytes.fromhex(given[0]))))
            elif what == "die":
                points.arm(given[0], int(given[1]))
            print(packed(server.report) if what == "report" else "done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
