"""Calls to the addresses of a service: one transport for each address, every message counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

from google.protobuf.message import Message

from ps.client.connection.retry import Deadline
from ps.client.connection.transport import Begun, Transport
from ps.client.traffic import Traffic
from ps.wire.kinds import Call
from ps.wire.methods import Method


class Calls:
    """Makes calls, each once, without retries. Threads: any."""

    def __init__(self, open_transport: Callable[[str], Transport], check_usable: Callable[[], None]) -> None:
        """check_usable: raises InvalidArgument if the client must not be used."""
        self.traffic = Traffic()
        self._open_transport = open_transport
        self._check_usable = check_usable
        self._transports: dict[str, Transport] = {}
        self._lock = threading.Lock()

    def unary(self, address: str, method: Method, request: Message, deadline: Deadline) -> bytes:
        """Sends one message and returns the answer."""
        with self._counted(method) as call:
            data = request.SerializeToString()
            transport, timeout_s = self._transport(address), deadline.remaining_s()
            call.sent.message(data, request)
            answer = transport.unary(method, data, timeout_s)
            call.received.message(answer)
        return answer

    def stream_in(
        self,
        address: str,
        method: Method,
        head: Message,
        chunks: Iterable[bytes],
        deadline: Deadline,
        begun: Begun | None = None,
    ) -> bytes:
        """Sends a stream of messages and returns the answer. head: the first message, parsed. begun: is told how to end
        the call."""
        with self._counted(method) as call:

            def counted() -> Iterator[bytes]:
                for chunk in chunks:
                    if not call.sent.total:
                        call.sent.said(head)
                    call.sent.chunk(method, chunk)
                    yield chunk

            transport, timeout_s = self._transport(address), deadline.remaining_s()
            if begun is None:
                answer = transport.stream_in(method, counted(), timeout_s)
            else:
                answer = transport.stream_in(method, counted(), timeout_s, begun)
            call.received.message(answer)
        return answer

    def stream_out(self, address: str, method: Method, request: Message, deadline: Deadline) -> Generator[bytes]:
        """Sends one message and yields the answers. If the generator is closed early, the call is ended."""
        with self._counted(method) as call:
            data = request.SerializeToString()
            transport, timeout_s = self._transport(address), deadline.remaining_s()
            call.sent.message(data, request)
            for chunk in transport.stream_out(method, data, timeout_s):
                call.received.chunk(method, chunk)
                yield chunk

    def end(self) -> None:
        """Closes all transports, which ends the calls under way."""
        with self._lock:
            for transport in self._transports.values():
                transport.close()
            self._transports.clear()

    @contextmanager
    def _counted(self, method: Method) -> Iterator[Call]:
        call = Call()
        try:
            yield call
        finally:
            if call.sent.total or call.received.total:  # if it was made at all
                self.traffic.add(method, call)

    def _transport(self, address: str) -> Transport:
        self._check_usable()  # before the lock: in a forked child it may be held for ever
        with self._lock:
            self._check_usable()
            if address not in self._transports:
                self._transports[address] = self._open_transport(address)
            return self._transports[address]
