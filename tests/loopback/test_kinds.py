"""Bytes by kind: what a client says it has sent is, to the byte, what the shard says it has received; and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytest

import ps
from ps.server.shard_server import ShardServer
from ps.wire.kinds import KINDS
from ps.wire.methods import METHODS
from tests.loopback.scrape import scrape, value
from tests.loopback.tables import summing, weighing
from tests.waiting import until

DIM = 4
IDS = np.array([5, 9, 70_000, -3], np.int64)
N = len(IDS)
Kinds = dict[str, dict[str, int]]
"""By method, by kind: what is not zero."""


@pytest.fixture
def server() -> Iterator[ShardServer]:
    with ShardServer(0, ps.ServiceConfig()) as server:
        yield server


def of_shard(server: ShardServer, way: str) -> Kinds:
    found = scrape(server)
    return nonzero(
        {
            m.name: {k: int(value(found, f"ps_rpc_{way}_bytes_total", method=m.name, kind=k)) for k in KINDS}
            for m in METHODS
        }
    )


def of_clients(clients: Sequence[ps.Client], way: str) -> Kinds:
    together: dict[str, Counter[str]] = {}
    for client in clients:
        report = client.traffic()
        for method, kinds in report[f"{way}_by_kind"].items():
            assert sum(kinds.values()) == report[f"{way}_bytes"][method]
            assert all(n >= 0 for n in kinds.values())
            together.setdefault(method, Counter()).update(kinds)
    return nonzero(together)


def nonzero(kinds: Mapping[str, Mapping[str, int]]) -> Kinds:
    parts = {method: {kind: n for kind, n in of.items() if n} for method, of in kinds.items()}
    return {method: of for method, of in parts.items() if of}


def check_both(server: ShardServer, *clients: ps.Client) -> tuple[Kinds, Kinds]:
    """What the clients have sent and received, after the shard has come to the same."""
    sent, received = of_clients(clients, "sent"), of_clients(clients, "received")
    until(lambda: (of_shard(server, "received"), of_shard(server, "sent")) == (sent, received))
    return sent, received


def without_headers(kinds: Kinds) -> Kinds:
    return nonzero({method: {k: n for k, n in of.items() if k != "headers"} for method, of in kinds.items()})


def grads(n: int = N) -> np.ndarray:
    return np.ones((n, DIM), np.float32)


def test_every_kind_of_every_call_is_the_same_on_both_ends(server: ShardServer) -> None:
    with ps.connect(server.address) as client:
        client.create_table(weighing(positives=1, external=1))
        step = client.prepare({"w": IDS}, counts={"w": np.array([1, 2, 3, 4], np.uint32)})
        step.pull_rows()
        step.push({"w": grads()}, positives={"w": np.array([300, 0, 0, 1], np.uint32)})
        client.upsert("w", IDS[:2], grads(2))
        client.report_importance("w", IDS[:3], np.ones(3, np.float32))
        (page,) = client.export("w")
        assert len(page[0]) == N
        client.evict("w", rows=1)
        sent, received = check_both(server, client)
    assert without_headers(sent) == {
        "Prepare": {"ids": 8 * N + N},
        "Push": {"flags": 4 * N, "gradients": 4 * N * DIM},
        "Write": {"ids": 8 * 2, "rows": 4 * 2 * DIM},
        "ReportImportance": {"ids": 8 * 3, "flags": 4 * 3},
        "Remove": {"ids": 8, "flags": 8},
    }
    pages = received["Export"]["ids"] // 8
    assert pages >= N + 1, "one whole, and the least important"
    assert without_headers(received) == {
        "Pull": {"flags": 1, "rows": 4 * N * DIM},
        "Write": {"flags": 1},
        "ReportImportance": {"flags": 1},
        "Remove": {"flags": 1},
        "Export": {"ids": 8 * pages, "flags": 12 * pages, "rows": 4 * pages * DIM},
    }
    assert received["Stats"].keys() == {"headers"}


def test_chunks_selections_and_sorted_ids_too(server: ShardServer) -> None:
    ids = np.arange(60_000)
    with ps.connect(server.address, wire_dtype="fp16", compress_ids=True) as client:
        client.create_table(summing(dim=32))
        client.push("t", ids, np.ones((60_000, 32), np.float32))
        step = client.prepare({"t": ids})
        step.pull()
        step.push({"t": ps.Selected(np.array([7]), np.ones((1, 32), np.float32))})
        sent, received = check_both(server, client)
    assert 0 < sent["Prepare"]["ids"] < 60_000
    assert received["Pull"]["rows"] == 2 * 60_000 * 32, "of several messages"
    assert received["Pull"]["headers"] < 500
    selection = sent["Push"]["gradients"] - 2 * 60_000 * 32
    assert 60_000 / 8 + 64 <= selection < 60_000 / 8 + 80, "a bitmap and the numbers"


def test_repeats_and_refusals_are_counted_by_both(server: ShardServer) -> None:
    with ps.connect(server.address) as client, ps.connect(server.address) as other:
        client.create_table(summing(dim=DIM))
        step = client.prepare({"t": IDS})
        step.push({"t": grads()})
        step.push({"t": grads()})
        assert client.traffic()["sent_by_kind"]["Push"]["gradients"] == 2 * 4 * N * DIM
        other.drop_table("t")
        with pytest.raises(ps.TableNotFound):
            client.push("t", IDS, grads())
        with pytest.raises(ps.TableNotFound):
            client.pull("t", IDS)
        check_both(server, client, other)
