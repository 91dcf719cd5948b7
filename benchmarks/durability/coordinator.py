"""A coordinator of `crash`: python -m benchmarks.durability.coordinator CONFIG SHARDS PORT REACHED

Prints its address. On stdin, a line each: `die POINT TIMES`; `assemble INFOS`, `adopt REPORTS`, `replace INFO`. While
it works on these it may print `tell HEX`, a routing table for all shards, and reads a line when they have it; at last
it prints `done HEX`, the table that clients are told.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.durability.lines import unpacked
from benchmarks.durability.points import DyingFiles, Points
from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.errors import Unavailable
from ps.wire.routing import Routing

TRIES = 5


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
        print("done", _hex(_settled(coordinator, what, unpacked(word), shards)), flush=True)
    coordinator.stop()


def _settled(coordinator: Coordinator, what: str, given: Any, shards: int) -> Routing:
    """Does what is asked. A shard that cannot be reached is tried again, as Ray's actors do."""
    for left in reversed(range(TRIES)):
        try:
            if what == "assemble":
                return coordinator.assemble(given, _tell)
            if what == "adopt":
                return coordinator.adopt(given, shards, _tell)
            return coordinator.replace_shard(given)
        except Unavailable:
            if not left:
                raise
    raise AssertionError("unreachable: the last try raises")


def _tell(routing: Routing) -> None:
    print("tell", _hex(routing), flush=True)
    sys.stdin.readline()


def _hex(routing: Routing) -> str:
    return routing.to_proto().SerializeToString().hex()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
