"""A coordinator of `crash`: python -m benchmarks.durability.coordinator CONFIG SHARDS PORT REACHED

Prints its address. On stdin, a line each: `die POINT TIMES`; `assemble INFOS`, `adopt REPORTS`, `replace INFO`. While
it works on these it may print `tell HEX`, a routing table for all shards, and reads a line when they have it; at last
it prints `done HEX`, the table that clients are told.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.durability.lines import unpacked
from benchmarks.durability.points import DyingFiles, Points
from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.wire.routing import Routing


def main(settings: str, shards: int, port: int, reached: str) -> None:
    """Serves until stdin ends, or the point is reached."""
    points = Points(Path(reached))
    coordinator = Coordinator(ServiceConfig.from_json(settings), port, files=DyingFiles(points))
    print(coordinator.address, flush=True)
    while line := sys.stdin.readline():
        what, word, *times = line.split()
        if what == "die":
            points.arm(word, int(times[0]))
            print("done", flush=True)
            continue
        given = unpacked(word)
        if what == "assemble":
            routing = coordinator.assemble(given, _tell)
        elif what == "adopt":
            routing = coordinator.adopt(given, shards, _tell)
        else:
            routing = coordinator.replace_shard(given)
        print("done", _hex(routing), flush=True)
    coordinator.stop()


def _tell(routing: Routing) -> None:
    print("tell", _hex(routing), flush=True)
    sys.stdin.readline()


def _hex(routing: Routing) -> str:
    return routing.to_proto().SerializeToString().hex()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
