"""Numbers as people write them on a command line. Pure."""

from __future__ import annotations

import re

from ps.config.sizes import bytes_of
from ps.errors import InvalidArgument

_THOUSANDS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_NUMBER = re.compile(r"([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*([a-z/]*)", re.IGNORECASE)


def parse_count(text: str) -> int:
    """Reads "1e9", "2.5M" or "1000000". Raises InvalidArgument."""
    value, unit = _split(text)
    if unit not in _THOUSANDS:
        raise InvalidArgument(f"{text!r}: expected a number, or one with k, M, G or T after it: 1e9, 2.5M")
    return round(value * _THOUSANDS[unit])


def parse_bytes(text: str) -> int:
    """Reads a size as configurations have it. Raises InvalidArgument."""
    try:
        return bytes_of(text)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def parse_network(text: str) -> float:
    """Reads "10Gbit/s" or "10Gbit" as bytes a second. Raises InvalidArgument."""
    value, unit = _split(text)
    prefix = unit.removesuffix("/s").removesuffix("bit")
    if prefix not in _THOUSANDS or not unit.removesuffix("/s").endswith("bit"):
        raise InvalidArgument(f"{text!r}: expected bits a second, as 10Gbit/s")
    return value * _THOUSANDS[prefix] / 8


def _split(text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text.strip().replace("_", "").replace(",", ""))
    if found is None:
        raise InvalidArgument(f"{text!r} is no number: write 1e9, 2.5M or 10Gbit/s")
    return float(found[1]), found[2].lower()
