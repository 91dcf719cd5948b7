"""Services of this process, by name: the address "inproc:NAME". Servers register, the client's transport looks up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from ps.errors import InvalidArgument, Unavailable
from ps.quoting import shown
from ps.wire.methods import Method

PREFIX = "inproc:"
SHARDS = "shards="
MOST_SHARDS = 64
"""The most shards in one process: each has some ten threads."""
FORM = f'"{PREFIX}" for one shard in this process, "{PREFIX}{SHARDS}4" for several (at most {MOST_SHARDS})'


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


def asked_shards(address: object) -> int:
    """The number of shards of the service that the address asks to start in this process; 0 where it names a service
    that runs. Raises InvalidArgument."""
    if address == PREFIX:
        return 1
    if not isinstance(address, str) or not address.startswith(PREFIX) or "=" not in address:
        return 0
    key, _, number = address.removeprefix(PREFIX).partition("=")
    if f"{key}=" != SHARDS or not (number.isascii() and number.isdigit()) or not 0 < int(number) <= MOST_SHARDS:
        raise InvalidArgument(f"address {shown(address)} asks for no service: give {FORM}")
    return int(number)


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
    raise Unavailable(f"no service {shown(address)} in this process; ps.connect('inproc:') starts one")
