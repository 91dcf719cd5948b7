"""Services of this process, by name: the address "inproc:NAME". Servers register here, and the client's transport looks
them up."""

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
    """The calls that a server offers in process: the same three shapes as over gRPC, in bytes."""

    def unary(self, method: Method, data: bytes) -> bytes:
        """Takes one message and returns one."""

    def stream_in(
        self, method: Method, chunks: Iterator[bytes], begun: Callable[[Callable[[], object]], None] | None = None
    ) -> bytes:
        """Takes a stream and returns one message. `begun` is told how to end a call that waits, which then raises
        CancelledError."""

    def stream_out(self, method: Method, data: bytes) -> Iterator[bytes]:
        """Takes one message and yields a stream."""


def asked_shards(address: object) -> int:
    """Returns how many shards the address asks to start in this process; 0 if it names a running service. Raises
    InvalidArgument."""
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
    """Makes an endpoint reachable at an address."""
    with _lock:
        _endpoints[address] = endpoint


def lookup(address: str) -> Endpoint:
    """Returns the endpoint at an address; raises Unavailable."""
    with _lock:
        if address in _endpoints:
            return _endpoints[address]
    raise Unavailable(f"no service {shown(address)} in this process; ps.connect('inproc:') starts one")
