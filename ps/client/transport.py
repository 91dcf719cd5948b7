"""How bytes reach a shard: over gRPC, or in this process through the same codec. Raises PsError, knows no retries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import grpc

from ps.errors import PsError
from ps.wire import inproc, status
from ps.wire.allocator import keep_freed_memory
from ps.wire.channel import open_channel
from ps.wire.methods import METHODS, Method, Shape


class Transport(Protocol):
    """Calls one address. `timeout_s` is the time left until the caller's deadline."""

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """One message in, one out."""

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float) -> bytes:
        """A stream in, one message out."""

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """One message in, a stream out."""

    def close(self) -> None:
        """Ends the connection."""


class GrpcTransport:
    """One channel to one address."""

    def __init__(self, address: str, max_message_bytes: int = 64 << 20) -> None:
        keep_freed_memory()
        self.address = address
        self._channel = open_channel(address, max_message_bytes)
        kinds: dict[Shape, Callable[[str], Any]] = {
            Shape.UNARY: self._channel.unary_unary,
            Shape.STREAM_IN: self._channel.stream_unary,
            Shape.STREAM_OUT: self._channel.unary_stream,
        }
        self._calls = {method: kinds[method.shape](method.path) for method in METHODS}

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """One message in, one out."""
        try:
            answer: bytes = self._calls[method](data, timeout=timeout_s)
            return answer
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float) -> bytes:
        """A stream in, one message out."""
        try:
            answer: bytes = self._calls[method](iter(chunks), timeout=timeout_s)
            return answer
        except grpc.RpcError as error:
            raise self._translated(error) from None

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """One message in, a stream out."""
        call = self._calls[method](data, timeout=timeout_s)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self._translated(error) from None
        finally:
            call.cancel()  # does nothing after the end; before it, the shard stops sending

    def close(self) -> None:
        """Ends the connection."""
        self._channel.close()

    def _translated(self, error: grpc.RpcError) -> PsError:
        call: Any = error  # grpc raises its calls: every RpcError of a call is a grpc.Call, which the type does not say
        return status.from_status(call.code(), f"{call.details()} [{self.address}]", call.trailing_metadata() or ())


class InProcessTransport:
    """Calls a service of this process; every message is encoded and decoded, every error passes through its status."""

    def __init__(self, address: str) -> None:
        self.address = address

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """One message in, one out."""
        try:
            return inproc.lookup(self.address).unary(method, data)
        except PsError as error:
            raise self._translated(error) from None

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float) -> bytes:
        """A stream in, one message out."""
        try:
            return inproc.lookup(self.address).stream_in(method, iter(chunks))
        except PsError as error:
            raise self._translated(error) from None

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """One message in, a stream out."""
        try:
            yield from inproc.lookup(self.address).stream_out(method, data)
        except PsError as error:
            raise self._translated(error) from None

    def close(self) -> None:
        """Nothing to end: the service belongs to whoever started it."""

    def _translated(self, error: PsError) -> PsError:
        details = f"{status.details_of(error)} [{self.address}]"
        return status.from_status(status.code_of(error), details, status.to_metadata(error))


def open_transport(address: str) -> Transport:
    """The transport for an address: "host:port" or "inproc:NAME"."""
    return InProcessTransport(address) if address.startswith(inproc.PREFIX) else GrpcTransport(address)
