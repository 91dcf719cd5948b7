"""What a log and checkpoints cost: pushes and training steps on shards with each mode, and what one sync of this disk
takes.

Each shard is a process of its own, and this process is their client; all get the same pushes in turn. Those with a log
make a checkpoint every CHECKPOINT_S, so that there is one in each part of the run: more often than anybody needs. The
logs are in the folder for temporary files: set TMPDIR to measure another disk. `two_at_once`: two threads of the client
push. `speed_vs_off` is the median of rounds; `whole_run_vs_off` is by the time of all rounds together, those beside a
checkpoint too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import ps
from benchmarks.harness.data import batches, generator, gradients, random_ids
from benchmarks.harness.measure import Contender, Rounds, interleave
from benchmarks.harness.report import Report
from benchmarks.harness.service import fill, one_shard
from benchmarks.harness.sizes import Sizes
from benchmarks.problems.flights import Year
from benchmarks.service.safety_steps import STEPS, Steps
from ps.arrays import Ids
from ps.durability.checkpoint.catalog import Checkpoints
from worker.data.errors import MissingDependency

TABLE = "t"
MODES = ("off", "interval", "sync")
THREADS = 2
CHECKPOINT_S = 10.0
"""Seconds between two checkpoints. A service that makes one every minute pays a sixth."""
STEP_ROUNDS = 5
"""Times as many rounds of training steps as of pushes: a round is short."""
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
            if mode != "off":
                config = config.having(
                    checkpoint={"path": str(folder / f"{mode}-checkpoints"), "every_s": CHECKPOINT_S, "keep": 1}
                )
            clients[mode], _ = stack.enter_context(one_shard(config))
            clients[mode].create_table(ps.TableConfig(name=TABLE, dim=sizes.dim))
            fill(clients[mode], TABLE, ids_N, sizes.dim, sizes.batch)
        for name, batch in (("push", sizes.batch), ("small_push", sizes.batch // SMALL)):
            _compare(report, name, clients, ids_N, batch, sizes)
        _train(report, clients, sizes)
        for mode in MODES[1:]:
            (stats,) = clients[mode].stats()["shards"]
            log = stats["log"]
            report.add(mode, "bytes_per_write", log["bytes_written"] / log["records"])
            report.add(mode, "writes_per_sync", log["records"] / max(log["fsyncs"], 1))
            report.add(mode, "sync_ms", log["fsync_s"] / max(log["fsyncs"], 1) * 1e3)
            report.add(mode, "checkpoints", len(Checkpoints(str(folder / f"{mode}-checkpoints")).list()))
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
        _add(report, kind, rounds, "rows_per_s", pushes * batch)
    pool.shutdown()


def _train(report: Report, clients: dict[str, ps.Client], sizes: Sizes) -> None:
    """Trains on flights, if their data is here."""
    try:
        year = Year()
    except MissingDependency as error:
        print(f"safety: flights: skipped: {error}", file=sys.stderr)
        return
    contenders = {mode: Contender(Steps(client, year).train) for mode, client in clients.items()}
    rounds = interleave(STEP_ROUNDS * min(sizes.rounds, MOST_ROUNDS), contenders)
    _add(report, "flights", rounds, "steps_per_s", STEPS)


def _add(report: Report, kind: str, rounds: Rounds, metric: str, amount: float) -> None:
    for mode in MODES:
        report.add(f"{kind}_{mode}", metric, rounds.per_second(mode, amount))
        if mode != "off":
            report.add(f"{kind}_{mode}", "speed_vs_off", rounds.speed_ratio(mode, "off"))
            whole = sum(rounds.seconds["off"]) / sum(rounds.seconds[mode])
            report.add(f"{kind}_{mode}", "whole_run_vs_off", whole)


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
