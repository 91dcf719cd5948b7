"""The configuration of a service: what each of its shards and its coordinator is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ps.address import bare_host
from ps.config import yaml_file
from ps.errors import ConfigError
from ps.values.frozen import Frozen, Seconds

PARTITIONS = 4096
"""Hash partitions of the id space: the unit that moves between shards."""

MIN_RAM_BYTES = 64 << 20
"""The least that a shard can be given."""


class ServiceConfig(Frozen):
    """What a shard's server is told. The defaults suit one host; every limit has a typed error behind it."""

    host: str = "127.0.0.1"
    """Address to listen on, by IPv4, IPv6 or name. Loopback by default: there is no authentication on the port yet.
    "auto": the address of the node that a shard runs on, as Ray knows it."""
    grpc_threads: Annotated[int, Field(ge=2, le=1024)] = 16
    """Calls that are worked on at once: decoded, encoded, waiting for the engine. One that waits for its client is not
    among them, nor is a push that waits for the other ranks of its round."""
    max_requests: Annotated[int, Field(ge=1, le=4096)] = 256
    """Calls in progress at once, a thread each, those that wait for their client too; more are refused with
    RESOURCE_EXHAUSTED and a hint when to come again. One connection may have a quarter of them. Half of them may be
    pushes that wait for the other ranks of their rounds, without a thread: a group has at most so many ranks, and one.
    Describe, Stats, Advance and health are not among them."""
    max_connections: Annotated[int, Field(ge=1)] = 1024
    """Clients connected at once; fewer where the process may open fewer files. One more is turned away, and tries
    again."""
    stall_timeout_s: Seconds = 30.0
    """A call whose client sends nothing, or reads nothing, for so long is ended with Unavailable, which clients retry;
    so is one that goes on at less than 16 KiB a second on average. Raise it where the largest message, of
    `max_message_bytes`, takes longer on your network. Where others need the room, a second of silence is enough."""
    max_message_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 64 << 20
    """Largest single gRPC message, both ways; with `ram_bytes`, at most half of what messages under way may take. Rows
    and gradients travel in chunks and are not bound by it."""
    max_ids: Annotated[int, Field(ge=1)] = 4 << 20
    """Most ids in one request, over all its tables."""
    max_body_bytes: Annotated[int, Field(ge=1 << 20)] = 1 << 30
    """Most bytes of rows or gradients in one call: they are held in memory until applied or sent."""
    prepare_ttl_s: Seconds = 60.0
    """A prepared step that nobody used is forgotten after so long."""
    max_steps: Annotated[int, Field(ge=1)] = 1024
    """Prepared steps held at once; the oldest is forgotten first, and its pull and push carry their ids."""
    max_steps_bytes: Annotated[int, Field(ge=1)] = 256 << 20
    """Bytes of ids, counts and slots of prepared steps held at once; the same happens beyond them."""
    ledger_window: Annotated[int, Field(ge=16)] = 1024
    """Pushes remembered per worker. A retry that comes later than that many pushes is refused, not guessed at."""
    max_ledger_bytes: Annotated[int, Field(ge=1 << 20)] = 256 << 20
    """Bytes of remembered writes over all workers; beyond it those of the workers silent longest are forgotten."""
    ram_bytes: int | None = None
    """RAM that a shard's process may use above what it takes at its start, all counted; at least MIN_RAM_BYTES. Caches
    and limits below get at most a share of it (`ps.storage.budget.budget`), rows what is left. With a disk the others
    go there; without one the least important ones are evicted. None: no bound but the host's memory."""
    gpu_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """Bytes of rows that a shard may hold on a GPU, over its tables with `device: cuda`; what would pass it is refused.
    What torch needs to work with comes on top, some hundred MiB. None: no bound but the GPU's memory."""
    disk_path: Path | None = None
    """Directory for rows on disk; None: all rows stay in RAM. Each shard has a folder of its own below it, which it
    empties at the start: scratch space. A relative path, and ~, are those of the host that the shard runs on."""
    disk_cache_bytes: Annotated[int, Field(ge=1 << 20)] = 64 << 20
    """RAM for RocksDB's blocks, indexes and filters."""
    disk_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    """Room on disk. Four fifths of it are for rows, the rest is for what RocksDB keeps until it compacts; when those
    are full the least important rows are evicted, down to nine tenths. None: no bound."""
    drain_timeout_s: Seconds = 10.0
    """How long a shard that is told to stop waits for calls in progress."""
    metrics: bool = True
    """Serve Prometheus metrics on a port of its own: every shard, and the coordinator."""
    log_format: Literal["text", "json"] = "text"
    """Of the lines that shards and coordinator log (Ray keeps them by actor): for people, or a JSON object each, with
    the ids of worker, step and write that a line is about."""
    tracing: bool = False
    """Send OpenTelemetry traces of calls, by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra `otel`."""
    discovery_path: Path | None = None
    """Directory, on the coordinator's host, in which it keeps SERVICE.json: Prometheus's targets, for its
    `file_sd_configs`. Written when a shard starts or comes back, removed when the service ends. None: no such file."""

    @field_validator("host")
    @classmethod
    def _as_sockets_take_it(cls, host: str) -> str:
        return bare_host(host)

    @field_validator("ram_bytes")
    @classmethod
    def _workable(cls, ram_bytes: int | None) -> int | None:
        if ram_bytes is not None and ram_bytes < MIN_RAM_BYTES:
            raise ValueError(
                f"the smallest that works is {MIN_RAM_BYTES:,} bytes: what a process takes when it is used, messages, "
                "caches and write buffers need two thirds of that"
            )
        return ram_bytes

    @model_validator(mode="after")
    def _disk_bytes_need_a_disk(self) -> Self:
        if self.disk_bytes is not None and self.disk_path is None:
            raise ValueError(f"disk_bytes is {self.disk_bytes:,}, and there is no disk: set disk_path too")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Reads a YAML mapping. Raises ConfigError for an unknown key or broken YAML, NotFound."""
        values = yaml_file.load(path) or {}
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, found {type(values).__name__}")
        return cls(**values)
