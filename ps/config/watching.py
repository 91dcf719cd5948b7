"""How a service is watched: metrics, logs, traces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ps.values.frozen import Frozen


class WatchingConfig(Frozen):
    """How a service is watched: metrics, logs, traces."""

    metrics: bool = True
    """Whether every shard, and the coordinator, serves Prometheus metrics on a port of its own."""
    log_format: Literal["text", "json"] = "text"
    """How shards and coordinator write log lines (Ray keeps them by actor): `text` for people, or `json`, one object
    for each line, with the ids of the worker, step and write that the line is about."""
    tracing: bool = False
    """Whether to send OpenTelemetry traces of calls, by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra
    `otel`."""
    discovery_path: Path | None = None
    """Directory, on the coordinator's host, in which it keeps SERVICE.json: Prometheus's targets, for its
    `file_sd_configs`. Written when a shard starts or comes back, removed when the service ends. None: no such file."""
