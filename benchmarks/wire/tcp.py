"""Counts what has crossed the sockets of this process, as the kernel reports it (Linux)."""

from __future__ import annotations

import os
import socket
import stat
import struct

_COUNTERS = struct.Struct("=QQ")
_COUNTERS_AT = 120
"""The place of tcpi_bytes_acked and tcpi_bytes_received in `struct tcp_info` (linux/tcp.h)."""


def tcp_bytes(peer_port: int | None = None) -> int:
    """Returns the bytes sent and acknowledged plus the bytes received, over all open TCP connections of this process,
    or over those to one port. Framing of gRPC and HTTP/2 is included; headers of TCP and IP are not, nor is anything
    sent twice."""
    return sum(_moved(int(name), peer_port) for name in os.listdir("/proc/self/fd"))


def _moved(descriptor: int, peer_port: int | None) -> int:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return 0
        ours = os.dup(descriptor)
    except OSError:  # closed by now
        return 0
    with socket.socket(fileno=ours) as its:
        if its.family not in (socket.AF_INET, socket.AF_INET6) or its.type != socket.SOCK_STREAM:
            return 0
        try:
            if peer_port not in (None, its.getpeername()[1]):
                return 0
        except OSError:  # one that listens
            return 0
        info = its.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _COUNTERS_AT + _COUNTERS.size)
    return sum(_COUNTERS.unpack_from(info, _COUNTERS_AT))
