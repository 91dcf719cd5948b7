"""A coordinator of `crash`: python -m benchmarks.durability.coordinator CONFIG SHARDS PORT

Prints its address. On stdin, a line each: `assemble INFOS`, `adopt REPORTS`, `replace INFO`. While it works it may
print `tell HEX`, a routing table for all shards, and reads a line when they have it; at last it prints `done HEX`, the
table that clients are told.
"""

from __future__ import annotations

import sys

from benchmarks.durability.lines import unpacked
from ps.cluster.coordinator.coordinator import Coordinator
from ps.config import ServiceConfig
from ps.wire.routing import Routing


def main(settings: str, shards: int, port: int) -> None:
    """Serves until stdin ends."""
    coordinator = Coordinator(ServiceConfig.from_json(settings), port)
    print(coordinator.address, flush=True)
    while line := sys.stdin.readline():
        what, word = line.split()
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
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
