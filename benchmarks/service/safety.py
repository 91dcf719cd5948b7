"""What a log costs: pushes to shards with each of its modes, and what one sync of this disk takes.

Each shard is a process of its own, and this process is their client; all get the same pushes in turn. The logs are in
the folder for temporary files: set TMPDIR to measure another disk. `two_at_once`: two threads of the client push.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import ps
from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import Contender, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard
from benchmarks.harness.sizes import Sizes
from ps.arrays import Ids

TABLE = "t"
MODES = ("off", "interval", "sync")
THREADS = 2
MOST_ROUNDS = 12
"""Rounds: a push of the full size takes 26 MB of each log."""
SMALL = 100
"""A hundredth of a batch is a small push."""


def run(report: Report, sizes: Sizes) -> None:
    """Pushes gradients of random ids, all of which have rows."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ids_N = random_ids(generator(), sizes.rows // 4)
        clients = {}
        for mode in MODES:
            config = ps.ServiceConfig().having(log={"mode": mode, "path": folder / mode})
            clients[mode], _ = stack.enter_context(one_shard(config))
            clients[mode].create_table(ps.TableConfig(name=TABLE, dim=sizes.dim))
            fill(clients[mode], TABLE, ids_N, sizes.dim, sizes.batch)
        for name, batch in (("push", sizes.batch), ("small_push", sizes.batch // SMALL)):
            _compare(report, name, clients, ids_N, batch, sizes)
        for mode in MODES[1:]:
            (stats,) = clients[mode].stats()["shards"]
            log = stats["log"]
            report.add(mode, "bytes_per_write", log["bytes_written"] / log["records"])
            report.add(mode, "writes_per_sync", log["records"] / max(log["fsyncs"], 1))
            report.add(mode, "sync_ms", log["fsync_s"] / max(log["fsyncs"], 1) * 1e3)
        for name, nbytes in (("4KiB", 4 << 10), ("of_a_push", sizes.batch * sizes.dim * 4)):
            report.add("disk", f"sync_ms_{name}", _sync_ms(folder / "probe", nbytes, sizes.rounds))


def _compare(report: Report, name: str, clients: dict[str, ps.Client], ids_N: Ids, batch: int, sizes: Sizes) -> None:
    rng = generator()
    ids = batches(rng, ids_N, batch)
    grads_ND = gradients(rng, batch, sizes.dim)
    pool = ThreadPoolExecutor(THREADS)

    def push(client: ps.Client, part_N: Ids) -> None:
        client.push(TABLE, part_N, grads_ND)

    def at_once(client: ps.Client, part_N: Ids) -> None:
        list(pool.map(lambda _: push(client, part_N), range(THREADS)))

    for kind, run_, pushes in ((name, push, 1), (f"{name}_two_at_once", at_once, THREADS)):
        contenders = {mode: Contender(partial(run_, client), ids) for mode, client in clients.items()}
        rounds = interleave(min(sizes.rounds, MOST_ROUNDS), contenders)
        for mode in MODES:
            report.add(f"{kind}_{mode}", "rows_per_s", rounds.per_second(mode, pushes * batch))
            if mode != "off":
                report.add(f"{kind}_{mode}", "speed_vs_off", rounds.speed_ratio(mode, "off"))
    pool.shutdown()


def _sync_ms(path: Path, nbytes: int, rounds: int) -> list[float]:
    """Returns the milliseconds of each sync of so many new bytes at the end of a file."""
    found, data = [], os.urandom(nbytes)
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            file.write(data)
            started = time.perf_counter()
            os.fsync(file.fileno())
            found.append((time.perf_counter() - started) * 1e3)
    return found
