"""The health probe of a container against real servers."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.server.probe import probe
from ps.server.shard_server import ShardServer
from tests.conftest import QUIET, StartServer


def test_a_shard_that_serves_and_one_that_lost_its_rows(shard_server: ShardServer) -> None:
    assert probe(shard_server.address) == "SERVING"
    with ShardServer(0, QUIET, state_lost="gone") as lost:
        assert probe(lost.address) == "NOT_SERVING"


def test_a_coordinator_serves_when_it_knows_the_shards(start_server: StartServer) -> None:
    """Whoever starts by its health, as the trainer of docker/compose.yaml, can connect then."""
    server = start_server()
    with ExitStack() as stack:
        first, second = (Coordinator(ps.ServiceConfig()) for _ in range(2))
        stack.callback(first.stop)
        stack.callback(second.stop)
        assert probe(first.address) == "NOT_SERVING"
        server.set_routing(first.assemble([server.info]))
        assert probe(first.address) == "SERVING"
        assert probe(second.address) == "NOT_SERVING"
        second.adopt([server.report], 1)
        assert probe(second.address) == "SERVING"


def test_nobody_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        assert probe(f"127.0.0.1:{held.getsockname()[1]}") == "UNAVAILABLE"


def test_its_exit_status_is_what_the_container_goes_by(start_server: StartServer) -> None:
    def run(server: ShardServer) -> int:
        return subprocess.run([sys.executable, "-m", "ps.server.probe", server.address], capture_output=True).returncode

    assert run(start_server()) == 0
    with ShardServer(0, QUIET, state_lost="gone") as lost:
        assert run(lost) == 1


def test_without_a_host_it_is_this_one(start_server: StartServer) -> None:
    server = start_server(network={"host": socket.gethostbyname(socket.gethostname())})
    assert probe(f":{server.address.rpartition(':')[2]}") == "SERVING"
