"""Honest clients beside one that tries to stop the shard: how long their calls take, and what becomes of their
pushes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import ps
from benchmarks.harness.processes import child
from benchmarks.harness.report import Report
from benchmarks.harness.service import one_shard
from benchmarks.harness.sizes import Sizes
from benchmarks.service.attacks import ATTACKS, DIM, TABLE

CLIENTS, IDS = 4, 1_000
RAM = 512 << 20
TIMEOUT_S = 60.0
RECOVERY_S = 5.0
"""The time after an attack by which the calls should be as fast as before."""


@dataclass
class Honest:
    """One honest client, which makes its calls one after the other, on ids of its own."""

    number: int
    calls: list[tuple[float, float]] = field(default_factory=list)
    """When each answered call began, and the seconds that it took."""
    pushed: int = 0
    refused: list[ps.errors.PsError] = field(default_factory=list)

    def ids(self) -> npt.NDArray[np.int64]:
        """Returns the ids of this client alone: int64 [IDS]."""
        return np.arange(IDS) + 1_000_000 * (self.number + 1)

    def run(self, address: str, stop: threading.Event) -> None:
        """Pushes and pulls until it is told to stop."""
        grads_ND = np.ones((IDS, DIM), np.float32)
        with ps.connect(address) as client:
            while not stop.is_set():
                self._timed(lambda: client.pull(TABLE, self.ids(), timeout_s=TIMEOUT_S))
                if self._timed(lambda: client.push(TABLE, self.ids(), grads_ND, timeout_s=TIMEOUT_S)):
                    self.pushed += 1

    def _timed(self, call: object) -> bool:
        began = time.monotonic()
        try:
            call()  # type: ignore[operator]
        except ps.errors.PsError as error:
            self.refused.append(error)
            return False
        self.calls.append((began, time.monotonic() - began))
        return True


def p99_ms(clients: Sequence[Honest], since: float, until: float) -> float:
    """Returns the 99th percentile of the calls that began in that time, in ms."""
    found = [seconds for client in clients for began, seconds in client.calls if since <= began < until]
    return float(np.percentile(found, 99)) * 1e3 if found else float("inf")


@dataclass(frozen=True)
class Attacked:
    """The effect of an attack."""

    clients: Sequence[Honest]
    without_ms: float
    """p99 of the calls before the attack, in ms."""
    under_ms: float
    after_ms: float
    """p99 of the calls from RECOVERY_S after the attack's end on, in ms."""
    sums_right: bool
    """Whether every row is the sum of what was acknowledged."""


def attacked(name: str, seconds: float) -> Attacked:
    """Starts a shard, and measures the calls without, during and after an attack, for the same time each."""
    with ExitStack() as stack:
        client, server = stack.enter_context(one_shard(ps.ServiceConfig(memory=ps.MemoryConfig(ram_bytes=RAM))))
        client.create_table(ps.TableConfig(name=TABLE, dim=DIM, optimizer=ps.SGD(lr=1.0), initializer=ps.Constant()))
        metrics_address = client.shards()[0].metrics_address
        stop, clients = threading.Event(), [Honest(number) for number in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        running = [pool.submit(honest.run, server.address, stop) for honest in clients]
        stack.callback(stop.set)
        time.sleep(1.0)  # connections, first calls
        began = time.monotonic()
        time.sleep(seconds)
        attack = time.monotonic()
        with child("benchmarks.service.attacks", name, server.address, metrics_address):
            full = time.monotonic()
            time.sleep(seconds)
            over = time.monotonic()
        time.sleep(RECOVERY_S)
        normal = time.monotonic()
        time.sleep(seconds)
        stop.set()
        for future in running:
            future.result()
        rows = [client.pull(TABLE, honest.ids(), timeout_s=TIMEOUT_S) for honest in clients]
        right = all((block == -honest.pushed).all() for block, honest in zip(rows, clients, strict=True))
        end = time.monotonic()
        return Attacked(
            clients, p99_ms(clients, began, attack), p99_ms(clients, full, over), p99_ms(clients, normal, end), right
        )


def run(report: Report, sizes: Sizes) -> None:
    """Measures each attack by itself, and all at once."""
    for name in ATTACKS:
        found = attacked(name, 0.4 * sizes.rounds)
        report.add(name, "p99_ms_without", found.without_ms)
        report.add(name, "p99_ms_under", found.under_ms)
        report.add(name, "p99_ms_after", found.after_ms)
        report.add(name, "p99_under_vs_without", found.under_ms / found.without_ms)
        report.add(name, "refused_for_good", sum(len(client.refused) for client in found.clients))
        report.add(name, "sums_wrong", int(not found.sums_right))
