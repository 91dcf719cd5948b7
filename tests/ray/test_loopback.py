"""A local Ray of our own listens on loopback only: nobody on the network finds a port of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

import ps

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves its log files open until the process ends
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # Ray announces its own changes
]

LISTEN = "0A"
"""As the kernel says it of a socket's state."""


def descendants(pid: int) -> Iterator[int]:
    """The process and all that it, and they, have started and that run."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from descendants(int(child))


def sockets(pid: int) -> Iterator[str]:
    """Inodes."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            yield target[8:-1]


def host(hexadecimal: str) -> IPv4Address | IPv6Address:
    """As the kernel writes it: words of four bytes, each with the last byte first."""
    words = bytes.fromhex(hexadecimal)
    packed = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    if len(packed) == 4:
        return IPv4Address(packed)
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def listening() -> Iterator[tuple[str, IPv4Address | IPv6Address]]:
    """Inode and host of each socket of this machine that waits for connections."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                yield fields[9], host(fields[1].partition(":")[0])


def test_no_port_of_a_local_service_is_open_to_others() -> None:
    with ps.launch(shards=2, name="alone") as service:
        mine = {inode for pid in descendants(os.getpid()) for inode in sockets(pid)}
        hosts = [found for inode, found in listening() if inode in mine]
        assert len(hosts) > 10, "Ray's and ours"
        assert [found for found in hosts if not found.is_loopback] == []
        with ps.connect(service.address) as client:
            client.create_table(ps.TableConfig(name="t", dim=4))
            assert client.pull("t", [1]).shape == (1, 4)


@pytest.mark.slow
def test_shards_that_are_to_be_reached_from_elsewhere_are() -> None:
    with ps.launch(shards=1, name="open", config=ps.ServiceConfig(network={"host": "auto"})) as service:
        reached = service.address.rpartition(":")[0]
        assert not ps.address.is_loopback(reached)
        with ps.connect(service.address) as client:
            assert client.shards()[0].address.startswith(f"{reached}:")
            assert client.tables() == {}
