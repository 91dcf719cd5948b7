"""Measures how long a shard takes from its start to its first pull, after a clean stop.

    python -m benchmarks.service.clean_restart FOLDER [--rows 10000000] [--disk]

It fills a shard, stops it in order, starts another one on the same folder and pulls from it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import ps
from ps.durability.origin import Origin
from ps.durability.recovery import take_up
from ps.server.shard_server import ShardServer
from ps.server.unpacking import WIRE
from ps.shard import Shard
from ps.shard.caller import PATIENT
from ps.shard.operations.write import carry_out
from ps.shard.requests import TableIds
from ps.shard.writes.load import Load

DIM = 64
AT_ONCE = 100_000
HALF = "2600MiB"
"""RAM in which about half of 10,000,000 rows stay, beside a disk."""


def config(folder: Path, disk: bool) -> ps.ServiceConfig:
    """Returns the shard's settings."""
    settings = ps.ServiceConfig().having(watching={"metrics": False}, log={"mode": "interval", "path": folder / "log"})
    return settings.having(disk={"path": folder / "disk"}, memory={"ram_bytes": HALF}) if disk else settings


def fill(settings: ps.ServiceConfig, rows: int) -> float:
    """Fills a shard and stops it; returns the seconds that the stop took. The writes that fill it are not logged."""
    shard = Shard(0, settings)
    shard.create_table(ps.TableConfig(name="t", dim=DIM, optimizer=ps.SGD(lr=1.0)))
    block = np.ones((AT_ONCE, DIM), np.float32)
    for first in range(0, rows, AT_ONCE):
        ids = TableIds("t", np.arange(first, first + AT_ONCE))
        while True:
            try:
                load = Load(ids, block, np.ones(AT_ONCE, np.float32), 1)
                shard.engine.drive(carry_out(shard.core, load, PATIENT))
                break
            except ps.ResourceExhausted as error:
                time.sleep(error.retry_after_s or 0.1)
    print("rows:", shard.stats()["tables"], flush=True)
    recovered = take_up(shard, settings.log, WIRE, origin=Origin(1))
    assert recovered is not None
    recovered.origin.keep(1)
    started = time.monotonic()
    recovered.leave(shard)
    took = time.monotonic() - started
    shard.close()
    return took


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--disk", action="store_true")
    asked = parser.parse_args()
    settings = config(asked.folder, asked.disk)
    print(f"stop: {fill(settings, asked.rows):.1f} s", flush=True)
    started = time.monotonic()
    server = ShardServer(0, settings)
    with ps.connect(server.address) as client:
        assert (client.pull("t", np.arange(0, asked.rows, asked.rows // 1000)) == 1).all()
        print(f"start to first pull: {time.monotonic() - started:.1f} s; rows {client.size('t'):,}", flush=True)
    server._stopped = True  # the next stop is not measured
    server.stop()


if __name__ == "__main__":
    main()
