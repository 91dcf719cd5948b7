"""Ctrl-C, or an alarm, in the middle of a call: the caller goes on at once, and the call leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

import ps
from ps.round import Round
from ps.server import body
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.tables import block, summing
from tests.waiting import LIMIT_S, busy_engine, until

IDS, WIDE = np.arange(20_000), 128
"""10 MB, 5 of them for each shard: more than gRPC takes ahead."""

Call = Callable[[ps.Client, np.ndarray], object]
CALLS: dict[str, Call] = {
    "push": lambda client, grads: client.push("t", IDS, grads),
    "step": lambda client, grads: client.prepare({"t": IDS}).push({"t": grads}),
    "round": lambda client, grads: client.prepare({"t": IDS}).push({"t": grads}, in_round=Round("g", 1, 0, 1)),
    "upsert": lambda client, grads: client.upsert("t", IDS, grads),
    "assign": lambda client, grads: client.assign("t", IDS, grads),
    "remove": lambda client, grads: client.remove("t", IDS),
    "pull": lambda client, grads: client.pull("t", IDS),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LoopbackCluster]:
    with LoopbackCluster(2, QUIET) as running:
        yield running


@pytest.fixture
def alarm() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@contextmanager
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Shards read no body before the block is left: what is on its way is stuck in the client. Set when one would."""
    reached, go, plain = threading.Event(), threading.Event(), body.read_body

    def later(*arguments: object) -> object:
        reached.set()
        assert go.wait(LIMIT_S)
        return plain(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(body, "read_body", later)
    try:
        yield reached
    finally:
        go.set()


def request_threads() -> int:
    """Of gRPC's, that send the messages of a stream."""
    return sum("managed_target" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_interrupted_call_ends_and_leaves_nothing(
    cluster: LoopbackCluster, alarm: None, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    main, last = threading.main_thread().ident, cluster.servers[-1]  # whose call would be made last, by this thread
    assert main == threading.get_ident()
    with ps.connect(cluster.address) as client:
        client.create_table(summing(dim=WIDE), exist_ok=True)
        client.push("t", IDS, block(np.ones(len(IDS)), WIDE))
        threads, grads = request_threads(), block(np.ones(len(IDS)), WIDE)
        held = weakref.ref(grads)
        with busy_engine(last.shard), unread(monkeypatch) as reached:

            def interrupt_when_it_waits() -> None:
                waits = last.shard.engine
                until(lambda: len(last.dispatcher.calls) > 0 and (reached.is_set() or waits.queue_length > 0))
                signal.pthread_kill(main, signal.SIGUSR1)

            threading.Thread(target=interrupt_when_it_waits).start()
            with pytest.raises(KeyboardInterrupt):
                call(client, grads)
        del grads
        gc.collect()
        until(lambda: all(len(server.dispatcher.calls) == 0 for server in cluster.servers))
        until(lambda: request_threads() <= threads)
        until(lambda: gc.collect() >= 0 and held() is None)
        assert all(server.shard.budget.bodies.used == 0 for server in cluster.servers)
        assert all(server.shard.stats()["rounds_waiting"] == 0 for server in cluster.servers)
        client.pull("t", [1])
