"""Services of this process, by name: the address "inproc:NAME". Servers register, the client's transport looks up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from ps.errors import Unavailable
from ps.wire.methods import Method

PREFIX = "inproc:"


class Endpoint(Protocol):
    """What a server offers in process: the same three shapes of call as over gRPC, in bytes."""

    def unary(self, method: Method, data: bytes) -> bytes:
        """One message in, one out."""

    def stream_in(
        self, method: Method, chunks: Iterator[bytes], begun: Callable[[Callable[[], object]], None] | None = None
    ) -> bytes:
        """A stream in, one message out. `begun` is told how to end a call that waits; then CancelledError is raised."""

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """One message in, a stream out."""


_endpoints: dict[str, Endpoint] = {}
_lock = threading.Lock()


def register(address: str, endpoint: Endpoint) -> None:
    """Makes an endpoint reachable."""
    with _lock:
        _endpoints[address] = endpoint


def lookup(address: str) -> Endpoint:
    """Returns the endpoint at an address; raises Unavailable."""
    with _lock:
        if address in _endpoints:
            return _endpoints[address]
    raise Unavailable(f"no service {address!r} in this process; ps.connect('inproc:') starts one")
