"""A process with a service of some shards: it says where it listens, and ends when it is killed."""

from __future__ import annotations

import sys

import ps
from tests.clusters import LoopbackCluster


def main(shards: int) -> None:
    with LoopbackCluster(shards, ps.ServiceConfig(watching={"metrics": False})) as cluster:
        print(cluster.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
