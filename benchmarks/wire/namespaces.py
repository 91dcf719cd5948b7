"""A shaped link: two network namespaces of our own, joined by a veth pair, with `tc` limiting both ends.

The namespaces have no names: each lives in a process that waits for the end of its stdin, and in whatever is run in it.
So nothing is left behind when this process ends, even when it is killed, and nothing but these two ever meets the link:
there is no route out of it. Needs root and iproute2 (`tests/install_packages.sh`).
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

INTERFACE = "link0"
ADDRESSES = ("192.0.2.1", "192.0.2.2")
"""Addresses of the two ends, from TEST-NET-1 (RFC 5737), which is in nobody's network."""
BURST_S = 1e-3
"""How much may pass at once after a pause, as time at the link's rate."""
QUEUE_S = 50e-3
"""How much may wait in front of the link, as time at its rate; what comes beyond it is dropped, as a switch does."""


class NotPermitted(Exception):
    """Raised where there can be no such link; the message says why."""


@dataclass(frozen=True)
class End:
    """One of the two namespaces."""

    pid: int
    """The process that keeps the namespace."""
    address: str

    @property
    def within(self) -> tuple[str, ...]:
        """Returns the front of a command line that is to run here. It becomes the command: the process id stays."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")


@contextmanager
def link() -> Iterator[tuple[End, End]]:
    """Makes two ends that reach each other and nothing else, as fast as the machine can. Raises NotPermitted."""
    for tool in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(tool) is None:
            raise NotPermitted(f"there is no command `{tool}`: run tests/install_packages.sh")
    with _namespace(ADDRESSES[0]) as one, _namespace(ADDRESSES[1]) as other:
        peer = ("peer", "name", INTERFACE, "netns", str(other.pid))
        _try(*one.within, "ip", "link", "add", INTERFACE, "type", "veth", *peer)
        for end in (one, other):
            _run(*end.within, "ip", "address", "add", f"{end.address}/24", "dev", INTERFACE)
            _run(*end.within, "ip", "link", "set", INTERFACE, "up")
        yield one, other


def shape(ends: tuple[End, End], bits_per_s: int) -> None:
    """Limits each direction to so many bits a second from now on, Ethernet headers counted. Raises NotPermitted where
    the kernel has no token bucket filter."""
    bytes_per_s = bits_per_s / 8
    bucket = ("rate", f"{bits_per_s}bit", "burst", f"{bytes_per_s * BURST_S:.0f}b")
    queue = ("limit", f"{bytes_per_s * (QUEUE_S + BURST_S):.0f}b")
    for end in ends:
        _try(*end.within, "tc", "qdisc", "replace", "dev", INTERFACE, "root", "tbf", *bucket, *queue)


@contextmanager
def _namespace(address: str) -> Iterator[End]:
    keeper = subprocess.Popen(
        ["unshare", "--net", "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for us: the namespace goes when we have ended what runs in it
    )
    with keeper:  # closes its stdin, then waits
        try:
            if not _is_there(keeper):
                _, complaint = keeper.communicate()
                raise NotPermitted(f"no network namespace can be made here: {complaint.decode().strip()}")
            yield End(keeper.pid, address)
        finally:
            keeper.kill()


def _is_there(keeper: subprocess.Popen[bytes]) -> bool:
    """Returns whether the namespace is there: `cat` answers once it runs in it."""
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        keeper.stdin.write(b"there?\n")
        keeper.stdin.flush()
    except BrokenPipeError:
        return False
    return keeper.stdout.readline() == b"there?\n"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=True)


def _try(*command: str) -> None:
    try:
        _run(*command)
    except subprocess.CalledProcessError as error:
        raise NotPermitted(f"`{' '.join(command)}` says: {error.stderr.strip()}") from None
