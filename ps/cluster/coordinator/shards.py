"""The shards as the coordinator reaches them: over one connection each, by their position in the routing table."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ps.client.connection.transport import Transport, open_transport
from ps.wire.routing import Routing


class ShardCalls:
    """Connections to the shards. Threads: any."""

    def __init__(self, routing: Callable[[], Routing], max_message_bytes: int) -> None:
        """`routing` returns the current routing table; it raises Unavailable while there is none."""
        self.routing = routing
        self._max_message_bytes = max_message_bytes
        self._guard = threading.Lock()  # never held during a call
        self._transports: dict[str, Transport] = {}

    def transport(self, position: int) -> Transport:
        """Returns the connection to a shard, at the address that it has now: it may have come back at another one."""
        return self.at(self.routing().shards[position].address)

    def at(self, address: str) -> Transport:
        """Returns the connection to an address."""
        with self._guard:
            if address not in self._transports:
                self._transports[address] = open_transport(address, self._max_message_bytes)
            return self._transports[address]

    def close(self) -> None:
        """Closes the connections."""
        for transport in self._transports.values():
            transport.close()
