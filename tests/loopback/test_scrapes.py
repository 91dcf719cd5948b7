"""The metrics port: whoever connects to it, and however busy the shard is, a scrape is answered."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

import ps
from ps.address import parse
from ps.server.shard_server import ShardServer
from ps.server.watch import scrapes
from ps.shard.upkeep import watch
from tests.clocks import ByHand
from tests.loopback.scrape import scrape, value
from tests.loopback.tables import block, summing
from tests.waiting import LIMIT_S, busy_engine, until


@pytest.fixture
def metered() -> Iterator[ShardServer]:
    with ShardServer(0, ps.ServiceConfig()) as server:
        yield server


def connect(server: ShardServer, said: bytes = b"") -> socket.socket:
    connection = socket.create_connection(parse(server.metrics_address), timeout=LIMIT_S)
    connection.sendall(said)
    return connection


def scraping_threads() -> int:
    return sum(thread.name.startswith("scrape") for thread in threading.enumerate())


@pytest.mark.parametrize(
    "said", [b"", b"GET /metr", b"GET /metrics HTTP/1.0\r\nHost: x\r\n", b"\x16\x03\x01"], ids=repr
)
def test_connections_that_ask_nothing_are_few_and_a_scrape_is_answered(metered: ShardServer, said: bytes) -> None:
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(metered, said)) for _ in range(5 * scrapes.MOST_CONNECTIONS)]
        for _ in range(3):
            assert value(scrape(metered), "ps_pushes_total") == 0
        assert scraping_threads() <= scrapes.MOST_CONNECTIONS
        oldest = idle[0]
        assert oldest.recv(1 << 16) == b"" or said.startswith(b"\x16"), "it gave way"


def test_connections_that_read_no_answer_are_few_too(metered: ShardServer) -> None:
    asked = b"GET /metrics HTTP/1.0\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(5 * scrapes.MOST_CONNECTIONS):
            stack.enter_context(connect(metered, asked))
        assert value(scrape(metered), "ps_pushes_total") == 0
    assert scraping_threads() <= scrapes.MOST_CONNECTIONS


def test_a_connection_lasts_for_so_long_and_no_longer() -> None:
    clock = ByHand()
    with ShardServer(0, ps.ServiceConfig(), clock=clock) as server, connect(server, b"GET /") as connection:
        connection.setblocking(False)

        def ended() -> bool:
            clock.now += scrapes.LONGEST_S
            with suppress(BlockingIOError):
                return connection.recv(1) == b""
            return False

        until(ended, scrapes.SILENT_S * 0.8)


def test_figures_do_not_queue_and_are_there_while_the_engine_is_busy(
    metered: ShardServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    with ps.connect(metered.address) as client:
        client.create_table(summing())
        client.push("t", [1, 2], block([1, 2]))
        found = client.stats()["shards"][0]
        assert (found["pushes"], found["age_s"]) == (1, 0.0)
        with busy_engine(metered.shard):
            found = client.stats(timeout_s=LIMIT_S)["shards"][0]
            assert found["pushes"] == 1
            assert found["age_s"] > 0
            assert found["tables"]["t"]["rows"]["hot"] == 2
            assert value(scrape(metered), "ps_stats_age_seconds") > 0
            assert value(scrape(metered), "ps_pushes_total") == 1
        found = client.stats()["shards"][0]
        assert (found["pushes"], found["age_s"]) == (1, 0.0)


def test_figures_are_of_now_however_many_calls_wait(metered: ShardServer) -> None:
    """They are read as soon as the engine is done with what it does, before all that waits."""
    engine, version = metered.shard.engine, metered.shard.version
    with busy_engine(metered.shard) as go:
        behind = threading.Event()
        first = engine.post(lambda: behind.wait(LIMIT_S))  # what waits takes long as well
        looked = engine.look(lambda: metered.shard.version)
        go.set()
        assert looked.result(LIMIT_S) == version
        assert not first.done()
        behind.set()


FULL = """
import errno, json, os, resource, sys, urllib.request
import ps
from ps.server.shard_server import ShardServer
from ps.shard.upkeep import watch
from tests.loopback.scrape import scrape, value
from tests.loopback.tables import block, summing

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
with ShardServer(0, ps.ServiceConfig(disk={"path": sys.argv[1]})) as server, ps.connect(server.address) as client:
    client.create_table(summing())
    client.push("t", range(100), block(range(100)))
    client.stats()
    scrape(server)
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
    os.close(taken.pop())  # the scraper is in this process, and needs one
    found = client.stats()["shards"][0]
    print(json.dumps({
        "pushes": found["pushes"], "open": found["process"]["files_open"], "rss": found["process"]["rss_bytes"],
        "scraped": value(scrape(server), "ps_pushes_total"), "again": value(scrape(server), "ps_pushes_total"),
        "pulled": client.pull("t", [3]).tolist(),
    }))
    client.push("t", range(100), block(range(100)))
    for file in taken:
        os.close(file)
    with ps.connect(server.address) as late:
        print(json.dumps(late.pull("t", [3]).tolist()))
    print(value(scrape(server), "ps_pushes_total"))
"""


@pytest.mark.slow
def test_a_process_without_a_descriptor_left_answers_and_goes_on(tmp_path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    full, late, scraped = run.stdout.splitlines()
    found = json.loads(full)
    assert found.pop("rss") > 0
    assert found.pop("open") > 240
    assert found == {"pushes": 1, "scraped": 1, "again": 1, "pulled": [[-3.0] * 4]}
    assert json.loads(late) == [[-6.0] * 4]
    assert float(scraped) == 2


def test_closing_ends_connections(metered: ShardServer) -> None:
    with connect(metered) as connection:
        until(lambda: scraping_threads() > 0)
        metered.stop()
        assert connection.recv(1) == b""
