"""Where the shards and the coordinator of a service listen, and how long they wait for a client."""

from __future__ import annotations

from pydantic import field_validator

from ps.address import bare_host
from ps.values.frozen import Frozen, Seconds


class NetworkConfig(Frozen):
    """Where shards and coordinator listen, and how long they wait for a client."""

    host: str = "127.0.0.1"
    """Address to listen on: IPv4, IPv6 or a name. The default is loopback, because there is no authentication on the
    port yet. "auto": the address of the node that a shard runs on, as Ray knows it."""
    stall_timeout_s: Seconds = 30.0
    """A call whose client sends nothing, or reads nothing, for this long is ended with Unavailable, which clients
    retry. So is a call that moves less than 16 KiB a second on average. Raise it where the largest message, of
    `limits.max_message_bytes`, takes longer on your network. If other calls need the room, a call is ended after a
    second of silence."""
    drain_timeout_s: Seconds = 10.0
    """How long a shard that is told to stop waits for calls in progress."""

    @field_validator("host")
    @classmethod
    def _as_sockets_take_it(cls, host: str) -> str:
        return bare_host(host)
