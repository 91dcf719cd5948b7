"""Kills processes of a service under load, and looks each time whether the rows are what its trainers were told.

Two shards with `log.mode: sync`, a coordinator and four trainers, each a process of its own; this process looks after
them as Ray would. Each kill: a shard dies at a named point, or any of the processes is killed at some moment. Then the
trainers are stopped, what has died is started again, and all rows are compared, before the trainers go on. Checkpoints
are made all the while; at the end those that stayed are read.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections import Counter
from itertools import cycle, islice
from pathlib import Path

import ps
from benchmarks.durability.checkpointing import Checkpointing
from benchmarks.durability.fleet import Fleet, Process
from benchmarks.durability.oracle import Oracle
from benchmarks.durability.points import AT_START, OF_COORDINATOR, POINTS
from benchmarks.durability.pushes import ACKNOWLEDGED, TRAINERS, Pushes
from benchmarks.harness.report import Report
from benchmarks.harness.sizes import Sizes

SHARDS = 2
CHECKPOINTS = "checkpoints"
REACH_S = 30.0
"""How long a point may take: after that the shard is killed wherever it is."""
TRIES = 5
FEWEST, MOST = 4, 40
"""Pushes that are acknowledged between two kills."""
PROGRESS_S = 120.0
RANDOM = ("shard", "shard", "coordinator", "trainer")


def run(report: Report, sizes: Sizes) -> None:
    """Kills so often as it is asked."""
    chance = random.Random(sizes.kills)
    pushes = Pushes(sizes.crash_rows, sizes.crash_rows // 100, SHARDS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Fleet(folder, _config(folder), pushes) as fleet, ps.connect(fleet.address, timeout_s=120) as client:
            for table in pushes.tables().values():
                client.create_table(table)
            fleet.start_trainers()
            oracle, killed, missed = Oracle(pushes, fleet.told), Counter[str](), Counter[str]()
            with Checkpointing(fleet.address, folder / CHECKPOINTS) as checkpoints:
                for what in _schedule(sizes.kills, chance):
                    _wait_for_work(fleet, chance.randint(FEWEST, MOST))
                    _kill(fleet, what, chance, killed, missed)
                    oracle.check(client, fleet.lives)
                    fleet.signal_trainers(signal.SIGCONT)
            _report(report, oracle, fleet, killed, missed)
            report.add("checkpoints", "made", checkpoints.made)
            report.add("checkpoints", "failed", checkpoints.failed)
            report.add("checkpoints", "damaged", checkpoints.problems())


def _config(folder: Path) -> ps.ServiceConfig:
    return ps.ServiceConfig().having(
        log={"mode": "sync", "path": folder / "log", "segment_bytes": "1MiB"},
        disk={"path": folder / "disk"},
        checkpoint={"path": str(folder / CHECKPOINTS), "keep": 2, "full_every": 4},
        watching={"metrics": False},
    )


def _schedule(kills: int, chance: random.Random) -> list[str]:
    """Returns what dies: each point as often as any process at random, in an order by chance."""
    points = list(islice(cycle(POINTS), (kills + 1) // 2))
    found = points + [chance.choice(RANDOM) for _ in range(kills - len(points))]
    chance.shuffle(found)
    return found


def _kill(fleet: Fleet, what: str, chance: random.Random, killed: Counter[str], missed: Counter[str]) -> None:
    """Has something die and start again. The trainers are stopped then."""
    shard, trainer = chance.randrange(SHARDS), chance.randrange(TRAINERS)
    killed[what if what in RANDOM else "coordinator" if what in OF_COORDINATOR else "shard"] += 1
    if what == "trainer":
        fleet.trainers[trainer].kill()
        fleet.signal_trainers(signal.SIGSTOP, but=trainer)
        fleet.restart_trainer(trainer)
        fleet.signal_trainers(signal.SIGSTOP)
    elif what == "coordinator" or what in OF_COORDINATOR:
        if what in OF_COORDINATOR:
            missed[what] += not _dies(fleet.coordinator, what, chance.randint(1, 2))
        fleet.coordinator.kill()
        fleet.signal_trainers(signal.SIGSTOP)
        fleet.restart_coordinator()
    else:
        if what in POINTS and what not in AT_START:
            missed[what] += not _dies(fleet.shards[shard], what, chance.randint(1, 2))
        fleet.shards[shard].kill()
        fleet.signal_trainers(signal.SIGSTOP)
        if what in AT_START:
            missed[what] += not _dies_at_start(fleet, shard, what)
        fleet.restart_shard(shard)


def _dies_at_start(fleet: Fleet, shard: int, point: str) -> bool:
    """Has a shard die at a point of its start; returns whether it came there. Where a checkpoint has just been made the
    log has nothing behind it: then it is tried again after some work."""
    for _ in range(TRIES):
        if fleet.dies_at_start(shard, point, times=1):
            return True
        fleet.restart_shard(shard)
        fleet.signal_trainers(signal.SIGCONT)
        _wait_for_work(fleet, FEWEST)
        fleet.shards[shard].kill()
        fleet.signal_trainers(signal.SIGSTOP)
    return False


def _dies(process: Process, point: str, times: int) -> bool:
    """Has a process die at a point; returns whether it came there."""
    process.child.ask(f"die {point} {times}")
    return process.ended(REACH_S)


def _wait_for_work(fleet: Fleet, pushes: int) -> None:
    def done() -> int:
        return int(fleet.told[:, :, ACKNOWLEDGED].sum())

    wanted, ends_at = done() + pushes, time.monotonic() + PROGRESS_S
    while done() < wanted:
        if time.monotonic() > ends_at:
            raise TimeoutError(f"{pushes} pushes were not acknowledged within {PROGRESS_S:g} s: see above why")
        time.sleep(0.002)


def _report(report: Report, oracle: Oracle, fleet: Fleet, killed: Counter[str], missed: Counter[str]) -> None:
    found, reached = oracle.found, Counter(fleet.reached)
    report.add("sync", "lost", found.lost)
    report.add("sync", "doubled", found.doubled)
    report.add("sync", "recovered_is_prefix", found.prefixes / found.checks)
    report.add("sync", "acknowledged", int(fleet.told[:, :, ACKNOWLEDGED].sum()))
    for name in dict.fromkeys(RANDOM):
        report.add("kills", name, killed[name])
    for name in POINTS:
        report.add("reached", name, reached[name])
        report.add("missed", name, missed[name])
