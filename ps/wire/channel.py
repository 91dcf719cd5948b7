"""Options of channels and servers. Benchmarks use them too, so that they measure what is served.

gRPC would send messages to shards, even on loopback, through http_proxy and similar settings, which are for the web. So
only gRPC's own `grpc_proxy` and `no_grpc_proxy` are followed, and never for connections to this host.
"""

from __future__ import annotations

import os

import grpc
from grpc.experimental import ChannelOptions

from ps.address import is_loopback

PROXY = "grpc_proxy"

Option = tuple[str, int | str]


def options(max_message_bytes: int) -> list[Option]:
    """Returns the options for both sides: frames as large as a chunk, and message limits as configured (gRPC's own
    default is 4 MB)."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.http2.max_frame_size", (1 << 24) - 1),
        ("grpc.http2.lookahead_bytes", 4 << 20),
        ("grpc.http2.write_buffer_size", 1 << 20),
        ("grpc.optimization_target", "throughput"),
        ("grpc.keepalive_time_ms", 30_000),
    ]


def open_channel(address: str, max_message_bytes: int) -> grpc.Channel:
    """Returns a channel that connects on the first call and keeps trying: it reaches a restarted shard within a
    second."""
    extra: list[Option] = [
        (ChannelOptions.SingleThreadedUnaryStream, 1),  # the reader drives the stream: a thread switch less a chunk
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.enable_retries", 0),  # the client retries itself, with the ledger's sequence
        ("grpc.use_local_subchannel_pool", 1),  # each client its own connection
        proxy_option(address),
    ]
    return grpc.insecure_channel(address, options=[*options(max_message_bytes), *extra])


def proxy_option(address: str) -> Option:
    """Returns whether a channel to that address goes through a proxy."""
    wanted = bool(os.environ.get(PROXY)) and not is_loopback(address.rpartition(":")[0].strip("[]"))
    return ("grpc.enable_http_proxy", int(wanted))
