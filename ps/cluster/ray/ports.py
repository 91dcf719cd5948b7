"""Ports of this host: whether the coordinator could listen on one, and which process does where it could not."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ps.errors import InvalidArgument

ANY_HOST = "auto"
"""The host that is not known before an actor runs: all addresses of this host are tried."""


def refusal(host: str, port: int) -> str | None:
    """Returns why a server could not listen on the port, or None if it could. The kernel is asked, which takes no
    time."""
    try:
        with _bound(host, port) as probe:
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is in use{_by_whom(port)}"
        return f"cannot listen on port {port} of host {host!r}: {error.strerror or error}"
    return None


def check_free(host: str, port: int) -> None:
    """Raises InvalidArgument with the remedy where `refusal` finds a reason. Any port (0) is free."""
    why = refusal(host, port)
    if why is not None:
        raise InvalidArgument(f"{why}: end that process, or choose another port (psctl up --port), 0 for any")


@contextmanager
def chosen(host: str, port: int) -> Iterator[int]:
    """Chooses the number of "any" port: Ray gives a coordinator that it restarts the arguments of the first one again,
    and it must come back where its clients look for it.

    Until it listens we hold the port, bound without listening: the kernel offers it to nobody else, and lets the
    coordinator bind it beside us, since both set SO_REUSEADDR.
    """
    if port:
        yield port
        return
    with _bound("::" if ":" in host else ANY_HOST, 0) as held:  # the configured host may be another machine's
        yield int(held.getsockname()[1])


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Binds a socket as gRPC does."""
    where = "" if host == ANY_HOST else host
    family = socket.getaddrinfo(where, port, type=socket.SOCK_STREAM)[0][0] if where else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((where, port))
        yield probe


def _by_whom(port: int) -> str:
    """Returns " by process 12 (python)", where /proc tells."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _text(Path(f"/proc/net/{table}")).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        if inodes & _links(process / "fd"):
            return f" by process {process.name} ({_text(process / 'comm').strip()})"
    return ""


def _links(folder: Path) -> set[str]:
    """Returns the targets of the links in a folder; none where the folder is another user's, or gone."""
    found = set()
    with suppress(OSError):
        for link in folder.iterdir():
            with suppress(OSError):  # closed meanwhile; in our own process one is the folder itself
                found.add(os.readlink(link))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # not here: a container may hide it
