"""Traces of calls: grpc's own instrumentation around a real shard."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import ps
from ps.client.connection.transport import open_transport
from ps.server.shard_server import ShardServer
from ps.server.watch import tracing
from ps.v1 import embedding_pb2 as pb
from ps.wire import methods
from tests.conftest import QUIET
from tests.loopback.tables import block, summing
from tests.waiting import until
from tests.wire_calls import RawCalls, id_set

INSTALL = "pip install 'embedding-ps[otel]'"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opentelemetry", "opentelemetry.sdk", "opentelemetry.instrumentation"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ps.ConfigError, match=r"embedding-ps\[otel\]"):
        tracing.exporter({"shard": "0"})
    with pytest.raises(ps.ConfigError, match=r"embedding-ps\[otel\]"):
        tracing.instrument(None)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What servers and clients made after this tell; nothing is patched afterwards."""
    trace = pytest.importorskip("opentelemetry.sdk.trace", reason=INSTALL)
    instrumentation = pytest.importorskip("opentelemetry.instrumentation.grpc", reason=INSTALL)
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = trace.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    client = instrumentation.GrpcInstrumentorClient()
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)  # the client's takes no other
    client.instrument()
    tracing.instrument(provider)
    yield kept
    client.uninstrument()
    instrumentation.GrpcInstrumentorServer().uninstrument()


def test_a_call_is_a_span_of_the_trainer_with_one_of_the_shard_below(spans: Any) -> None:
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client:
        client.create_table(summing())
        client.push("t", range(1000), block(range(1000)))
        np.testing.assert_array_equal(client.pull("t", range(1000)), -block(range(1000)))

        def ended(method: str) -> list[Any]:
            return [s for s in spans.get_finished_spans() if s.name == f"/ps.v1.Embedding/{method}"]

        until(lambda: len(ended("Push")) == 2 and len(ended("Pull")) == 2)
        for method in ("Push", "Pull"):
            servers = [span for span in ended(method) if span.kind.name == "SERVER"]
            clients = {span.context.span_id for span in ended(method) if span.kind.name == "CLIENT"}
            assert servers
            assert all(span.parent.span_id in clients for span in servers)


def test_ranks_come_together_under_its_interceptor_which_knows_no_answers_that_come_later(spans: Any) -> None:
    with ShardServer(0, QUIET) as server, ps.connect(server.address) as client, ThreadPoolExecutor(2) as pool:
        client.create_table(summing())

        def push(rank: int, ranks: int = 2) -> None:
            client.prepare({"t": [1]}).push({"t": block([1])}, in_round=ps.Round("run", 1, rank, ranks), timeout_s=10)

        list(pool.map(push, range(2)))
        assert client.pull("t", [1])[0, 0] == -2
        with pytest.raises(ps.DeadlineExceeded, match=r"ranks \[1, 2\] of 3"):
            client.prepare({"t": [1]}).push({"t": block([1])}, in_round=ps.Round("run", 2, 0, 3), timeout_s=2)


def test_a_stream_that_nobody_reads_on_is_broken_off(spans: Any) -> None:
    """Its span ends, and the shard is free for the next call."""
    config = ps.ServiceConfig(watching={"metrics": False}, limits={"max_requests": 1})
    with ShardServer(0, config) as server, ps.connect(server.address) as client, RawCalls(server.address) as calls:
        client.create_table(summing())
        request = pb.PullRequest(header=calls.header, ids=id_set(t=range(500_000))).SerializeToString()
        transport = open_transport(server.address)
        stream = transport.stream_out(methods.PULL, request, 30.0)
        assert next(stream)
        stream.close()
        assert len(client.pull("t", [1], timeout_s=10)) == 1
        transport.close()


def test_spans_say_which_shard_they_are_of() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter", reason=INSTALL)
    provider = tracing.exporter({"shard": "3"})
    try:
        assert provider.resource.attributes["embedding_ps.shard"] == "3"
        assert provider.resource.attributes["service.name"] == "embedding-ps"
    finally:
        provider.shutdown()
