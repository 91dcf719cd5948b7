"""A gRPC server around a dispatcher: handlers by path, graceful drain, bounds on threads, connections and streams.

calls      a thread each, `limits.max_requests` of them; `performance.grpc_threads` of them work at once, the others
           wait for callers
controls   Describe, Stats, Advance, and those of checkpoints: threads of their own
aside      health and reflection (`ps.server.gate.aside`): threads of their own, which no other calls use
"""

from __future__ import annotations

import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from ps.address import address_of
from ps.config import ServiceConfig
from ps.errors import Unavailable
from ps.runtime.clock import Clock
from ps.server.answers import Answers
from ps.server.gate.aside import Aside
from ps.server.gate.behavior import Served, on
from ps.server.gate.dispatch import CONTROL_CALLS, CONTROLS, Dispatcher
from ps.server.gate.lanes import Watch
from ps.server.gate.lines import Places
from ps.storage.disk.options import MAX_OPEN_FILES
from ps.v1 import control_pb2, embedding_pb2
from ps.wire.allocator import keep_freed_memory
from ps.wire.channel import Option, options
from ps.wire.methods import Method, Shape

_SERVICES = [
    embedding_pb2.DESCRIPTOR.services_by_name["Embedding"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
]
REFUSING = 8
"""Threads beyond those of calls, which refuse calls above the limit."""
CONNECTION_SHARE = 4
"""The share of all calls in progress that one connection may have; further calls wait at the client."""
FEWEST_STREAMS = 16
IDLE_MS = 600_000
"""A connection without a call for so long is closed; the client opens another one for its next call."""
HANDSHAKE_MS = 10_000
"""The time that a new connection has to speak HTTP/2."""
OWN_FILES = 96
"""Descriptors that a process needs for itself, besides connections and RocksDB's files."""
FEWEST_CONNECTIONS = 16


class GrpcServer:
    """Listens on a port that the kernel chooses, or on the one given."""

    def __init__(self, dispatcher: Dispatcher, config: ServiceConfig, clock: Clock, port: int = 0) -> None:
        keep_freed_memory()
        self._config = config
        self._stopped = threading.Event()
        self._pools = _Pools(config)
        self._answers = Answers(clock)
        self._aside = Aside(_SERVICES, clock)
        self._server = grpc.server(
            self._pools.calls, options=[*options(config.limits.max_message_bytes), *server_options(config)]
        )
        self._server.add_generic_rpc_handlers(
            [*_generic_handlers(dispatcher, self._pools, self._answers, clock), *self._aside.handlers]
        )
        self.address = address_of(config.network.host, self._bind(config.network.host, port))
        self._server.start()
        self._watch = Watch([dispatcher.calls, dispatcher.controls, self._aside.lane], config.network.stall_timeout_s)
        self.set_serving(True)

    def _bind(self, host: str, port: int) -> int:
        try:
            return self._server.add_insecure_port(address_of(host, port))
        except RuntimeError as error:  # all that gRPC says
            where = f"port {port} of host {host!r}" if port else f"host {host!r}"
            raise Unavailable(
                f"cannot listen on {where}: {error}; is the port taken, or the host not an address of this machine?"
            ) from error

    def set_serving(self, serving: bool) -> None:
        """Sets what grpc.health.v1 answers."""
        self._aside.set_serving(serving)

    def stop(self) -> None:
        """Drains: health says NOT_SERVING, new calls are refused, those in progress get `network.drain_timeout_s`."""
        self._aside.drain()
        self._server.stop(self._config.network.drain_timeout_s).wait()
        self._watch.stop()
        self._answers.close()
        self._pools.end()
        self._aside.end()
        self._stopped.set()

    def wait(self) -> None:
        """Waits until `stop` is done."""
        self._stopped.wait()


def server_options(config: ServiceConfig) -> list[Option]:
    """Returns the options of gRPC that bound connections and their streams."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", max(config.limits.max_requests // CONNECTION_SHARE, FEWEST_STREAMS)),
        ("grpc.max_allowed_incoming_connections", most_connections(config)),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ]


def most_connections(config: ServiceConfig) -> int:
    """Returns the configured number of connections, or fewer if the process may open few files, so that a connection is
    refused before anything that needs a file fails."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return config.limits.max_connections
    files = MAX_OPEN_FILES if config.disk.path is not None else 0
    return min(config.limits.max_connections, max(limit - files - OWN_FILES, FEWEST_CONNECTIONS))


class _Pools:
    """The threads of a server's calls."""

    def __init__(self, config: ServiceConfig) -> None:
        # Threads are started as they are needed. Tracing puts all calls into the first of the pools, so it has room.
        self.calls = ThreadPoolExecutor(
            config.limits.max_requests + CONTROL_CALLS + REFUSING, thread_name_prefix="grpc"
        )
        self.controls = ThreadPoolExecutor(CONTROL_CALLS + REFUSING, thread_name_prefix="grpc-control")
        self.places = Places(config.performance.grpc_threads)

    def end(self) -> None:
        """Ends idle threads; the others end with their calls."""
        self.calls.shutdown(wait=False)
        self.controls.shutdown(wait=False)


def _generic_handlers(
    dispatcher: Dispatcher, pools: _Pools, answers: Answers, clock: Clock
) -> list[grpc.GenericRpcHandler]:
    services: dict[str, dict[str, Any]] = {}
    for method in dispatcher.handlers:
        services.setdefault(method.service, {})[method.name] = _handler(dispatcher, method, pools, answers, clock)
    return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]


def _handler(dispatcher: Dispatcher, method: Method, pools: _Pools, answers: Answers, clock: Clock) -> Any:
    """Returns the handler of a method. Every method takes its request as a stream: the wire is the same, and the wait
    for a message that does not come happens here, where it can be ended, and not in gRPC."""
    served = Served(dispatcher, method, None if method in CONTROLS else pools.places, answers, clock)
    pool = pools.controls if method in CONTROLS else pools.calls
    if method.shape is Shape.UNARY:
        return grpc.stream_unary_rpc_method_handler(on(pool, served.unary))
    return grpc.stream_stream_rpc_method_handler(on(pool, served.stream, non_blocking=True))
