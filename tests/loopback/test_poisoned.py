"""A shard where a write failed half-way, as its clients, its probes and its operators see it."""

from __future__ import annotations

import numpy as np
import pytest

import ps
from ps.server.probe import probe
from ps.server.shard_server import ShardServer
from ps.shard.ledger import Ledger
from tests.conftest import StartServer
from tests.loopback.scrape import scrape, value
from tests.loopback.tables import block, summing


def breaking(*_: object) -> None:
    raise MemoryError("injected")


@pytest.fixture
def server(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> ShardServer:
    server = start_server(watching={"metrics": True})
    with ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", [1], block([1]))
        monkeypatch.setattr(Ledger, "record", breaking)
        with pytest.raises(ps.ShardPoisoned, match="MemoryError: injected"):
            client.push("t", [1, 2], block([1, 2]))
        monkeypatch.undo()
    return server


def test_every_call_for_rows_is_told_why_and_not_retried(server: ShardServer) -> None:
    with ps.connect(server.address, timeout_s=60) as client:
        for call in (
            lambda: client.pull("t", [1]),
            lambda: client.push("t", [1], block([1])),
            lambda: client.upsert("t", [1], block([1])),
            lambda: client.remove("t", [1]),
            lambda: next(iter(client.export("t"))),
            lambda: client.create_table(summing("u")),
            lambda: client.drop_table("t"),
            lambda: client.size("t"),
        ):
            with pytest.raises(ps.ShardPoisoned, match="restart the service and load the last export"):
                call()
        (stats,) = client.stats()["shards"]
    assert "failed before it was recorded" in stats["poisoned"]
    assert np.isfinite(stats["process"]["rss_bytes"])


def test_probes_metrics_and_psctl_say_it(server: ShardServer) -> None:
    assert probe(server.address) == "NOT_SERVING"
    assert server.info.state == "POISONED"
    assert value(scrape(server), "ps_poisoned") == 1
