"""Measures the wire itself: an empty gRPC echo and raw TCP, each against a server process of its own.

    python -m benchmarks.wire.loopback grpc | tcp      the server: prints its address, ends with its stdin
    python -m benchmarks.wire.loopback plain           an echo of its own on both sides, run once for each line on stdin

The echo has the product's channel options and raw bytes serializers; messages are made once, sent many times, and
dropped when received. TCP sends from and receives into memory that is made once. There are two echoes: the plain one is
gRPC as it comes; the tuned one has the product's allocator settings on both sides too (docs/decisions/0004). Those hold
for a whole process and for good, so the plain one's client needs a process of its own.
"""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import grpc

from benchmarks.harness.processes import child
from ps.config import ServiceConfig
from ps.wire.allocator import keep_freed_memory
from ps.wire.channel import open_channel, options

MESSAGE_BYTES = 1 << 20
PULL, PUSH = "/benchmarks.Echo/Pull", "/benchmarks.Echo/Push"
_SIZE = struct.Struct("<Q")
_SIZES = struct.Struct("<QQ")


def messages(total: int) -> list[bytes]:
    """Makes messages of 1 MiB, `total` bytes in all."""
    whole = bytes(MESSAGE_BYTES)
    rest = total % MESSAGE_BYTES
    return [whole] * (total // MESSAGE_BYTES) + ([bytes(rest)] if rest else [])


class _Client:
    """A client that owns its server process."""

    def __init__(self, kind: str) -> None:
        self._stack = ExitStack()
        self._address = self._stack.enter_context(child("benchmarks.wire.loopback", kind)).address

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class GrpcEcho(_Client):
    """Streams of empty messages, with the product's allocator settings unless the environment forbids them."""

    def __init__(self) -> None:
        super().__init__("grpc")

    def __enter__(self) -> GrpcEcho:
        keep_freed_memory()  # as ps does, on both sides: the echo must not be slower than it could be
        channel = open_channel(self._address, ServiceConfig().limits.max_message_bytes)
        self._stack.callback(channel.close)
        self._pull = channel.unary_stream(PULL)  # type: ignore[var-annotated]
        self._push = channel.stream_unary(PUSH)  # type: ignore[var-annotated]
        return self

    @staticmethod
    def request(sent: int, received: int) -> bytes:
        """Makes a pull's request of `sent` bytes that asks for `received` bytes."""
        return _SIZE.pack(received).ljust(sent, b"\0")

    def pull(self, request: bytes) -> int:
        """Sends one message and receives a stream."""
        return sum(len(message) for message in self._pull(request))

    def push(self, body: list[bytes]) -> bytes:
        """Sends a stream and receives a few bytes."""
        answer: bytes = self._push(iter(body))
        return answer


class PlainEcho:
    """Sends these streams between two processes whose allocator has its default settings."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> PlainEcho:
        environment = {"EMBEDDING_PS_KEEP_FREED_MEMORY": "0"}
        self._child = self._stack.enter_context(child("benchmarks.wire.loopback", "plain", environment=environment))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def pull(self, sent: int, received: int) -> None:
        """Sends one message and receives a stream."""
        self._child.ask(f"pull {sent} {received}")

    def push(self, sent: int) -> None:
        """Sends a stream and receives a few bytes."""
        self._child.ask(f"push {sent} 0")


class TcpEcho(_Client):
    """Bytes on a socket."""

    def __init__(self) -> None:
        super().__init__("tcp")

    def __enter__(self) -> TcpEcho:
        host, port = self._address.split(":")
        self._socket = self._stack.enter_context(socket.create_connection((host, int(port))))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def exchange(self, sent: memoryview, received: memoryview) -> None:
        """Sends all of one buffer, then fills the other."""
        self._socket.sendall(_SIZES.pack(len(sent), len(received)))
        self._socket.sendall(sent)
        _receive(self._socket, received)


def touched(n: int) -> memoryview:
    """Returns n bytes of memory whose pages are there already."""
    return memoryview(bytearray(b"\1") * n)


def _receive(connection: socket.socket, into: memoryview) -> bool:
    """Receives into a buffer; returns False if the other side has closed."""
    while into:
        n = connection.recv_into(into)
        if not n:
            return False
        into = into[n:]
    return True


def _serve_grpc() -> None:
    def pull(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        (total,) = _SIZE.unpack_from(request)
        if total not in made:
            made[total] = messages(total)
        yield from made[total]

    def push(body: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        return _SIZE.pack(sum(len(message) for message in body))

    keep_freed_memory()
    made: dict[int, list[bytes]] = {}
    config = ServiceConfig()
    server = grpc.server(
        ThreadPoolExecutor(config.performance.grpc_threads), options=options(config.limits.max_message_bytes)
    )
    methods: dict[str, Any] = {
        "Pull": grpc.unary_stream_rpc_method_handler(pull),
        "Push": grpc.stream_unary_rpc_method_handler(push),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("benchmarks.Echo", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    sys.stdin.read()
    server.stop(0).wait()


def _serve_plain() -> None:
    made: dict[int, list[bytes]] = {}
    with GrpcEcho() as echo:
        print("ready", flush=True)
        for line in sys.stdin:
            kind, sent, received = line.split()
            if kind == "pull":
                echo.pull(echo.request(int(sent), int(received)))
            else:
                echo.push(made.setdefault(int(sent), messages(int(sent))))
            print("done", flush=True)


def _serve_tcp() -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sizes = memoryview(bytearray(_SIZES.size))
        buffers: dict[int, memoryview] = {}
        while _receive(connection, sizes):
            for n in _SIZES.unpack(sizes):
                if n not in buffers:
                    buffers[n] = touched(n)
            incoming, outgoing = _SIZES.unpack(sizes)
            _receive(connection, buffers[incoming])
            connection.sendall(buffers[outgoing])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    {"grpc": _serve_grpc, "plain": _serve_plain, "tcp": _serve_tcp}[sys.argv[1]]()
