"""Sends bytes to a shard: over gRPC, or in this process through the same codec. It raises PsError and does not
retry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, Protocol

import grpc

from ps.address import FORM, parse
from ps.errors import PsError, Unavailable
from ps.wire import inproc, status
from ps.wire.allocator import keep_freed_memory
from ps.wire.channel import open_channel
from ps.wire.methods import METHODS, Method, Shape

GRPC_NAME = "dns:///"
"""The prefix of gRPC's own target names, which may have several addresses."""
MAX_MESSAGE_BYTES = 64 << 20
"""The default of `connect`, the same as the service's."""


Begun = Callable[[Callable[[], object]], None]
"""A function that is told how to end a call that has begun."""


class Transport(Protocol):
    """Makes calls to one address. `timeout_s` is the time left until the caller's deadline."""

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """Sends one message and returns one."""

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        """Sends a stream and returns one message. With `begun`, another thread may end the call, which then raises
        Unavailable."""

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """Sends one message and yields a stream."""

    def close(self) -> None:
        """Closes the connection."""


class GrpcTransport:
    """One channel to one address."""

    def __init__(self, address: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        keep_freed_memory()
        self.address = address
        self._closed = False
        self._channel = open_channel(address, max_message_bytes)
        kinds: dict[Shape, Callable[[str], Any]] = {
            Shape.UNARY: self._channel.unary_unary,
            Shape.STREAM_IN: self._channel.stream_unary,
            Shape.STREAM_OUT: self._channel.unary_stream,
        }
        self._calls = {method: kinds[method.shape](method.path) for method in METHODS}

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """Sends one message and returns one."""
        with self._typed():
            answer: bytes = self._calls[method](data, timeout=timeout_s)
            return answer

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        """Sends a stream and returns one message."""
        with self._typed():
            if begun is None:  # gRPC's blocking call has a thread switch less
                answer: bytes = self._calls[method](iter(chunks), timeout=timeout_s)
                return answer
            call = self._calls[method].future(iter(chunks), timeout=timeout_s)
            begun(call.cancel)
            answer = call.result()
            return answer

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """Sends one message and yields a stream."""
        with self._typed():
            call = self._calls[method](data, timeout=timeout_s)
            try:
                yield from call
            finally:
                _end(call)

    def close(self) -> None:
        """Closes the channel."""
        self._closed = True
        self._channel.close()

    @contextmanager
    def _typed(self) -> Iterator[None]:
        """Raises grpc's errors as errors of this project."""
        try:
            yield
        except grpc.RpcError as error:
            # grpc raises its calls: every RpcError of a call is a grpc.Call, which the type does not say
            call: Any = error
            details = f"{call.details()} [{self.address}]"
            raise status.from_status(call.code(), details, call.trailing_metadata() or ()) from None
        except grpc.FutureCancelledError:
            raise Unavailable(f"the call was ended here, before it was answered [{self.address}]") from None
        except ValueError as error:  # all that grpc says of a call on a closed channel
            if not self._closed:
                raise
            raise Unavailable(f"the connection was closed [{self.address}]") from error


class InProcessTransport:
    """Calls a service of this process. Every message is encoded and decoded, and every error passes through its
    status."""

    def __init__(self, address: str) -> None:
        self.address = address

    def unary(self, method: Method, data: bytes, timeout_s: float) -> bytes:
        """Sends one message and returns one."""
        try:
            return inproc.lookup(self.address).unary(method, data)
        except PsError as error:
            raise self._translated(error) from None

    def stream_in(self, method: Method, chunks: Iterable[bytes], timeout_s: float, begun: Begun | None = None) -> bytes:
        """Sends a stream and returns one message."""
        try:
            return inproc.lookup(self.address).stream_in(method, iter(chunks), begun)
        except PsError as error:
            raise self._translated(error) from None
        except CancelledError:
            raise Unavailable(f"the call was ended here, before it was answered [{self.address}]") from None

    def stream_out(self, method: Method, data: bytes, timeout_s: float) -> Iterator[bytes]:
        """Sends one message and yields a stream."""
        try:
            yield from inproc.lookup(self.address).stream_out(method, data)
        except PsError as error:
            raise self._translated(error) from None

    def close(self) -> None:
        """Does nothing: the service is closed by its owner."""

    def _translated(self, error: PsError) -> PsError:
        details = f"{status.details_of(error)} [{self.address}]"
        return status.from_status(status.code_of(error), details, status.to_metadata(error))


def open_transport(address: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> Transport:
    """Returns the transport for an address: "host:port", "inproc:NAME", or gRPC's "dns:///...". Raises
    InvalidArgument."""
    if isinstance(address, str) and address.startswith(inproc.PREFIX):
        return InProcessTransport(address)
    if not isinstance(address, str) or not address.startswith(GRPC_NAME):
        parse(address, f'{FORM}, or "{inproc.PREFIX}"')
    return GrpcTransport(address, max_message_bytes)


def _end(call: Any) -> None:
    """Ends a call, so that the shard stops sending; does nothing if the call has ended. With OpenTelemetry in between,
    a call is a generator, and gRPC cancels the call in it when the generator is freed."""
    if hasattr(call, "cancel"):
        call.cancel()
    else:
        call.close()
