"""A process with one shard that logs its writes: it says where it listens, and ends when it is killed."""

from __future__ import annotations

import sys

import ps
from ps.server.shard_server import ShardServer


def main(path: str, mode: str) -> None:
    config = ps.ServiceConfig(watching={"metrics": False}, log={"mode": mode, "path": path, "segment_bytes": "1MiB"})
    with ShardServer(0, config) as server:
        print(server.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
