"""OpenTelemetry traces of a server's calls, by grpc's own instrumentation: the extra `otel`, off unless asked for.

A trainer that calls `GrpcInstrumentorClient().instrument()` before `ps.connect` has its spans in the same traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ps.errors import ConfigError

MISSING = "tracing is on, and OpenTelemetry is not installed here: pip install 'embedding-ps[otel]', or tracing: false"


def exporter(labels: Mapping[str, str]) -> Any:
    """Returns a provider that sends spans in the background, by OTLP over HTTP, to where OTEL_EXPORTER_OTLP_ENDPOINT
    says (localhost:4318). `labels` say who sends them. Raises ConfigError where the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(MISSING) from error
    who = {"service.name": "embedding-ps", **{f"embedding_ps.{name}": value for name, value in labels.items()}}
    provider = TracerProvider(resource=Resource.create(who))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def instrument(provider: Any) -> None:
    """Gives each call of the gRPC servers that are made from now on in this process a span."""
    try:
        from opentelemetry.instrumentation.grpc import GrpcInstrumentorServer
    except ImportError as error:
        raise ConfigError(MISSING) from error
    GrpcInstrumentorServer().instrument(tracer_provider=provider)
