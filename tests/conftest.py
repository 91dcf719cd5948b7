"""What tests share: real servers on loopback, a cluster without Ray, clients, the data folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

import ps
from benchmarks.wire.namespaces import End, NotPermitted, link
from ps.runtime.clock import SYSTEM_CLOCK, Clock
from ps.server.shard_server import ShardServer
from ps.shard import Shard
from tests.clusters import LoopbackCluster

settings.register_profile(
    "embedding-ps",
    deadline=None,  # the first example may wait for a compiler
    derandomize=os.environ.get("EXAMPLES") != "random",  # a red test is red for the next one too; see CONTRIBUTING.md
)
settings.load_profile("embedding-ps")

BESIDE = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    """Before any test module is imported, and with it torch."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads would fight the shards for two cores
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell; some tests press Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if BESIDE.is_dir():
        os.environ.setdefault("EMBEDDING_PS_DATA", str(BESIDE))


QUIET = ps.ServiceConfig(watching={"metrics": False})
"""Most tests look at no metrics; their HTTP server takes half a second to stop."""

StartServer = Callable[..., ShardServer]


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """start_server(limits={"max_ids": 8}, ..., clock=...) -> a ShardServer that is stopped after the test."""
    with ExitStack() as stack:

        def start(clock: Clock = SYSTEM_CLOCK, **settings: object) -> ShardServer:
            config = ps.ServiceConfig(**{"watching": {"metrics": False}, **settings})
            return stack.enter_context(ShardServer(0, config, clock=clock))

        yield start


@pytest.fixture
def shard_server(start_server: StartServer) -> ShardServer:
    """One shard on a loopback port."""
    return start_server()


@pytest.fixture
def cluster() -> Iterator[LoopbackCluster]:
    """Three shards and a coordinator, in this process."""
    with LoopbackCluster(3, QUIET) as running:
        yield running


@pytest.fixture(params=["inproc", "grpc-1-shard", "grpc-3-shards"])
def client(request: pytest.FixtureRequest) -> Iterator[ps.Client]:
    """The same client whatever lies between it and the shards."""
    with ExitStack() as stack:
        if request.param == "inproc":
            address = "inproc:"
        elif request.param == "grpc-1-shard":
            address = stack.enter_context(ShardServer(0, QUIET)).address
        else:
            address = stack.enter_context(LoopbackCluster(3, QUIET)).address
        yield stack.enter_context(ps.connect(address))


@pytest.fixture
def shard() -> Iterator[Shard]:
    """A shard without a server."""
    running = Shard(0)
    yield running
    running.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data sets; a test that needs it is skipped where there is none."""
    folder = Path(os.environ.get("EMBEDDING_PS_DATA", BESIDE))
    if not folder.is_dir():
        pytest.skip("no real data: set EMBEDDING_PS_DATA to its folder")
    return folder


@pytest.fixture
def link_ends() -> Iterator[tuple[End, End]]:
    """Two network namespaces that reach each other; a test that needs them is skipped where there can be none."""
    with ExitStack() as stack:
        try:
            ends = stack.enter_context(link())
        except NotPermitted as reason:
            pytest.skip(str(reason))
        yield ends
