"""Addresses as text: "host:port", with an IPv6 host in brackets. They are read and written only here."""

from __future__ import annotations

import ipaddress

from ps.errors import InvalidArgument

FORM = '"host:port", "[::1]:port" for an IPv6 host'
MAX_PORT = 65_535
_LOOPBACK_NAMES = ("localhost", "ip6-localhost")


def address_of(host: str, port: int) -> str:
    """Returns the text that `parse` reads."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(address: object, form: str = FORM) -> tuple[str, int]:
    """Returns host and port; an IPv6 host is without brackets. Raises InvalidArgument, which names the form."""
    if not isinstance(address, str):
        raise InvalidArgument(f"address {address!r} is a {type(address).__name__}: give a string, {form}")
    if "://" in address:
        raise InvalidArgument(f"address {address!r} is a URL: give {form}")
    host, colon, port = address.rpartition(":")
    if _is_ipv6(address) or (":" in host and not host.startswith("[")):
        raise InvalidArgument(f"address {address!r} does not say where its host ends: give {form}")
    if not colon or not port.isascii() or not port.isdigit():
        raise InvalidArgument(f"address {address!r} has no port: give {form}")
    if not 0 < int(port) <= MAX_PORT:
        raise InvalidArgument(f"address {address!r}: port {port} is not in 1 to {MAX_PORT}; give {form}")
    try:
        return bare_host(host), int(port)
    except InvalidArgument as error:
        raise InvalidArgument(f"address {address!r}: {error}; give {form}") from None


def bare_host(host: str) -> str:
    """Returns a host as sockets take it: an IPv6 host without its brackets. Raises InvalidArgument."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare:
        raise InvalidArgument("there is no host")
    if ":" in bare or bare != host:
        if not _is_ipv6(bare):
            raise InvalidArgument(f"host {host!r} is not an IPv6 address, which is all that may have ':' or brackets")
        return bare
    if any(sign.isspace() or sign in "/@?#[]" or not sign.isprintable() for sign in bare):
        raise InvalidArgument(f"host {host!r} is no name or address of a host")
    return bare


def is_loopback(host: str) -> bool:
    """Returns whether what is sent to this host stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOOPBACK_NAMES


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
