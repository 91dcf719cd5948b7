"""Servers and clients on IPv6, behind a web proxy's environment, and by addresses that are none."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest

import ps
from ps.cluster.coordinator.coordinator import Coordinator
from ps.server.probe import probe
from ps.server.shard_server import ShardServer
from ps.wire.channel import proxy_option
from tests.clusters import LoopbackCluster
from tests.conftest import QUIET
from tests.loopback.scrape import scrape
from tests.loopback.test_psctl import asked


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


on_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6")


@on_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_service_on_ipv6(host: str, tmp_path: Path) -> None:
    """Shards, coordinator, metrics, the health probe, Prometheus's targets and psctl."""
    config = ps.ServiceConfig(network={"host": host}, watching={"discovery_path": tmp_path})
    with LoopbackCluster(2, config) as cluster, ps.connect(cluster.address) as client:
        assert cluster.address.startswith("[::1]:")
        client.create_table(ps.TableConfig(name="t", dim=2))
        client.push("t", np.arange(100), np.ones((100, 2), np.float32))
        assert client.size("t") == 100
        assert probe(cluster.address) == "SERVING"
        assert scrape(cluster.servers[0])
        groups = json.loads((tmp_path / "default.json").read_text())
        assert all(target.startswith("[::1]:") for group in groups for target in group["targets"])
        code, report = asked("status", "--address", cluster.address)
        assert (code, [shard["state"] for shard in report["shards"]]) == (0, ["SERVING", "SERVING"])


def test_a_web_proxy_is_not_for_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.delenv("no_proxy", raising=False)
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        assert probe(server.address) == "SERVING"
        client.create_table(ps.TableConfig(name="t", dim=1))
        assert client.pull("t", [1]).shape == (1, 1)


def test_grpcs_own_proxy_is_followed_but_not_to_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("grpc_proxy", raising=False)
    assert proxy_option("10.0.0.1:1") == ("grpc.enable_http_proxy", 0)
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:9")
    asked_for = {address: proxy_option(address)[1] for address in ("10.0.0.1:1", "127.0.0.1:1", "[::1]:1", "shard:1")}
    assert asked_for == {"10.0.0.1:1": 1, "127.0.0.1:1": 0, "[::1]:1": 0, "shard:1": 1}


@pytest.mark.parametrize("address", ["", "localhost", ":1", "http://localhost:1", "::1:1", None, 7])
def test_what_is_no_address_is_refused_at_once(address: object) -> None:
    with pytest.raises(ps.InvalidArgument, match=r'"host:port".*or "inproc:"'):
        ps.connect(address)  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_said_by_the_server() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ps.Unavailable, match=rf"cannot listen on port {port} of host '127.0.0.1'"):
            Coordinator(QUIET, port)


def test_a_message_above_its_limit_names_the_limits(shard_server: ShardServer) -> None:
    """gRPC's own refusal, of the side that sends and of the one that receives."""
    ids = np.arange(200_000)
    with ps.connect(shard_server.address) as client:
        client.create_table(ps.TableConfig(name="t", dim=1))
    with (
        ps.connect(shard_server.address, max_message_bytes=1 << 20) as client,
        pytest.raises(ps.ResourceExhausted, match=r"max_message_bytes.*fewer ids at once.*max_ids"),
    ):
        client.pull("t", ids)
    with (
        ShardServer(0, ps.ServiceConfig(watching={"metrics": False}, limits={"max_message_bytes": 1 << 20})) as server,
        ps.connect(server.address) as client,
    ):
        client.create_table(ps.TableConfig(name="t", dim=1))
        with pytest.raises(ps.ResourceExhausted, match=r"max_message_bytes.*fewer ids at once.*max_ids"):
            client.pull("t", ids)
