"""A shard of `crash`: python -m benchmarks.durability.shard SHARD CONFIG REACHED [POINT TIMES]

Prints its address. On stdin, a line each, and a line of answer: `routing HEX`, `report`, `die POINT TIMES`. It ends
when its stdin does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.durability.lines import packed
from benchmarks.durability.points import DyingFiles, Points, wrap
from ps.config import ServiceConfig
from ps.server.shard_server import ShardServer
from ps.v1 import control_pb2
from ps.wire.routing import Routing


def main(shard: int, settings: str, reached: str, name: str = "", times: str = "1") -> None:
    """Serves until stdin ends, or the point is reached."""
    points = Points(Path(reached))
    wrap(points)
    if name:
        points.arm(name, int(times))
    config = ServiceConfig.from_json(settings)
    with ShardServer(shard, config, alone=False, files=DyingFiles(points)) as server:
        print(server.address, flush=True)
        for line in sys.stdin:
            what, *given = line.split()
            if what == "routing":
                server.set_routing(Routing.from_proto(control_pb2.Routing.FromString(bytes.fromhex(given[0]))))
            elif what == "die":
                points.arm(given[0], int(given[1]))
            print(packed(server.report) if what == "report" else "done", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
