"""A shard with a log, as its clients and its operators see it; and its process, killed while clients push."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.cli.survey import LOG_FAILED, look
from ps.errors import LogFailed, ResourceExhausted, Unavailable
from ps.server.probe import probe
from tests.conftest import StartServer
from tests.documents import ROOT
from tests.loopback.scrape import scrape, value
from tests.loopback.tables import DIM, block, contents, summing
from tests.unit.storage.test_disk_failures import mounted
from tests.wire_calls import RawCalls, id_set, rows_bytes

CLIENTS, PUSHES, IDS, KILLS = 4, 150, 40, 3
PATIENCE_S = 200.0


@pytest.mark.parametrize("mode", ["interval", "sync"])
def test_a_shard_that_is_started_again_has_its_tables_and_rows(
    mode: str, start_server: StartServer, tmp_path: Path
) -> None:
    log = {"mode": mode, "path": tmp_path}
    server = start_server(log=log)
    with ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", [1, 2, 1], block([1, 2, 3]))
        client.upsert("t", [7], block([5]))
        client.remove("t", [2])
        before = contents(client, "t")
    server.stop()
    server = start_server(log=log)
    with ps.connect(server.address) as client:
        client.create_table(summing(), exist_ok=True)
        assert contents(client, "t") == before == {1: [-4.0] * DIM, 7: [5.0] * DIM}
        client.push("t", [1], block([1]))
        (stats,) = client.stats()["shards"]
    assert (stats["version"], stats["log"]["mode"], stats["log"]["records"]) == (5, mode, 1)


def test_a_log_that_failed_refuses_writes_and_says_why(start_server: StartServer, tmp_path: Path) -> None:
    """Rows are read on: an export rescues them."""
    with mounted(tmp_path / "small", "2M"):
        server = start_server(log={"mode": "sync", "path": tmp_path / "small"}, watching={"metrics": True})
        with ps.connect(server.address, timeout_s=20) as client:
            client.create_table(summing(dim=64))
            assert value(scrape(server), "ps_log_failed") == 0
            sent = fill(client)
            for call in (
                lambda: client.push("t", [1], block([1], 64)),
                lambda: client.remove("t", [1]),
                lambda: client.drop_table("t"),
            ):
                with pytest.raises(LogFailed, match=r"No space left on device.*look at its disk"):
                    call()
            assert len(contents(client, "t")) == 1000
            assert client.pull("t", [0])[0, 0] in (-sent, -sent - 1), "the last one was not acknowledged"
        assert probe(server.address) == "NOT_SERVING"
        assert server.info.state == "LOG_FAILED"
        metrics = scrape(server)
        assert value(metrics, "ps_log_failed") == 1
        assert value(metrics, "ps_log_records_total") == sent + 1
        (seen,) = look(server.address, 20).shards
        assert seen.state == LOG_FAILED
        assert "No space left" in str(seen.why)
        server.stop()


def fill(client: ps.Client) -> int:
    for sent in range(20):
        try:
            client.push("t", np.arange(1000), np.ones((1000, 64), np.float32))
        except LogFailed:
            return sent
    raise AssertionError("the disk took everything")


def test_a_full_log_is_said_at_once(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(log={"mode": "interval", "path": tmp_path, "max_bytes": "1MiB"})
    with ps.connect(server.address, timeout_s=60) as client:
        client.create_table(summing(dim=64))
        with pytest.raises(ResourceExhausted, match=r"may have 1,048,576 \(log.max_bytes\)"):
            fill(client)
        assert probe(server.address) == "SERVING"


class Service:
    """A shard's process that is killed and started again, in the two modes in turn; clients wait until it is back."""

    def __init__(self, path: Path) -> None:
        self._command = [sys.executable, "-m", "tests.loopback.logging_server", str(path)]
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._starts = 0
        self.address = ""
        self.acknowledged = 0

    def start(self) -> None:
        command = [*self._command, ("sync", "interval")[self._starts % 2]]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process = process
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        with self._changed:
            self.address, self._starts = address, self._starts + 1
            self._changed.notify_all()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def wait(self, starts: int) -> int:
        """Waits until it was started more often than that; returns how often."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._starts > starts, PATIENCE_S)
            return self._starts

    def note(self) -> None:
        with self._changed:
            self.acknowledged += 1
            self._changed.notify_all()

    def wait_for(self, acknowledged: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.acknowledged >= acknowledged, PATIENCE_S)


@contextmanager
def service(path: Path) -> Iterator[Service]:
    running = Service(path)
    running.start()
    try:
        yield running
    finally:
        running.kill()


def pushes(worker: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids, and whole-number gradients."""
    rng = np.random.default_rng(worker)
    for _ in range(PUSHES):
        ids_N = rng.permutation(IDS)[: rng.integers(1, IDS)]
        yield ids_N, rng.integers(-8, 9, (len(ids_N), DIM)).astype(np.float32)


def push_all(running: Service, worker: int) -> None:
    """Repeats what was under way with the same sequence, whichever process answers."""
    starts, calls = running.wait(0), RawCalls(running.address, worker)
    for sequence, (ids_N, grads_ND) in enumerate(pushes(worker), 1):
        while True:
            try:
                what = {"ids": id_set(t=ids_N)}
                calls.push(sequence, [("t", len(ids_N), DIM)], rows_bytes(grads_ND), **what)
                break
            except Unavailable:
                calls.transport.close()
                starts = running.wait(starts)
                calls = RawCalls(running.address, worker)
        running.note()
    calls.transport.close()


@pytest.mark.slow
@pytest.mark.timeout(600)  # four starts of a process, on a machine that may be busy
def test_no_acknowledged_push_is_lost_or_applied_twice(tmp_path: Path) -> None:
    chance = random.Random(3)
    with service(tmp_path) as running, ThreadPoolExecutor(CLIENTS) as pool:
        with ps.connect(running.address) as client:
            client.create_table(summing())
        clients = [pool.submit(push_all, running, worker) for worker in range(1, CLIENTS + 1)]
        for k in range(KILLS):
            running.wait_for(CLIENTS * PUSHES * k // KILLS + chance.randint(10, CLIENTS * PUSHES // KILLS - 20))
            running.kill()
            running.start()
        for each in clients:
            each.result(PATIENCE_S)
        expected_ND = np.zeros((IDS, DIM), np.float32)
        for worker in range(1, CLIENTS + 1):
            for ids_N, grads_ND in pushes(worker):
                expected_ND[ids_N] -= grads_ND
        with ps.connect(running.address) as client:
            assert (client.pull("t", np.arange(IDS)) == expected_ND).all()
            (stats,) = client.stats()["shards"]
    assert stats["version"] == CLIENTS * PUSHES + 1
    assert stats["log"]["records"] < stats["version"], "the rest was replayed"
