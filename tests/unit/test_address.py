"""Addresses as text."""

from __future__ import annotations

import re

import pytest

from ps.address import address_of, bare_host, is_loopback, parse
from ps.config import ServiceConfig
from ps.errors import ConfigError, InvalidArgument


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [("127.0.0.1", 7370, "127.0.0.1:7370"), ("::1", 1, "[::1]:1"), ("shard-0.ps", 65_535, "shard-0.ps:65535")],
)
def test_what_is_written_is_read(host: str, port: int, text: str) -> None:
    assert address_of(host, port) == text
    assert parse(text) == (host, port)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "address '' has no port"),
        ("localhost", "address 'localhost' has no port"),
        ("localhost:", "has no port"),
        ("localhost:http", "has no port"),
        ("localhost:²", "has no port"),
        ("localhost:0", "port 0 is not in 1 to 65535"),
        ("localhost:65536", "port 65536 is not in"),
        (":7370", "there is no host"),
        ("::1", "does not say where its host ends"),
        ("::1:7370", "does not say where its host ends"),
        ("fe80::1:2:3:4:5:6:7:8", "does not say where its host ends"),
        ("[::1]", "has no port"),
        ("[localhost]:1", "is not an IPv6 address"),
        ("[::1:7370", "is not an IPv6 address"),
        ("http://localhost:7370", "is a URL"),
        ("local host:1", "is no name or address"),
        ("localhost:1\n", "has no port"),
        ("user@host:1", "is no name or address"),
        (b"localhost:1", "is a bytes"),
        (None, "is a NoneType"),
        (7370, "is a int"),
    ],
)
def test_what_is_no_address_is_refused_with_the_form(address: object, says: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(says)) as raised:
        parse(address)
    assert '"host:port"' in str(raised.value)


def test_hosts() -> None:
    assert [bare_host(host) for host in ("[::1]", "::1", "auto", "10.0.0.1")] == ["::1", "::1", "auto", "10.0.0.1"]
    loopback = [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "10.0.0.1", "shard")]
    assert loopback == [True, True, True, True, False, False]


def test_a_service_keeps_its_host_as_sockets_take_it() -> None:
    assert ServiceConfig(network={"host": "[::1]"}).network.host == "::1"
    for wrong in ("", "localhost:7370", "http://localhost", "[localhost]"):
        with pytest.raises(ConfigError, match="host"):
            ServiceConfig(network={"host": wrong})
