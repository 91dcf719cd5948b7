"""Numbers of bytes as people write them: "8GiB", "512 MiB", 1073741824."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from ps.quoting import shown

UNITS: dict[str, int] = {"B": 1} | {
    f"{prefix}{kind}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for kind, base in (("iB", 1024), ("B", 1000))
}
"""Bytes of each unit: KiB to TiB count by 1024, KB to TB by 1000."""

_BY_NAME = {name.lower(): factor for name, factor in UNITS.items()}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:e[0-9]{1,2})?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)
FORM = "a number of bytes, or one with a unit: 8GiB (8 x 1024^3 bytes), 8GB (8 x 1000^3 bytes), 512MiB, 1.5TiB"


def bytes_of(text: str) -> int:
    """Returns the number of bytes that the text says. Raises ValueError, which says how sizes are written."""
    found = _SIZE.fullmatch(text.strip().replace("_", "").replace(",", ""))
    factor = _BY_NAME.get(found[2].lower() or "b") if found else None
    if found is None or factor is None:
        raise ValueError(f"{shown(text)} is no size: write {FORM}")
    return round(Decimal(found[1]) * factor)


def written(size: int) -> str:
    """Returns the shortest text in binary units that `bytes_of` reads as exactly this size."""
    unit, factor = "", 1
    for name in ("KiB", "MiB", "GiB", "TiB"):
        if size and size % UNITS[name] == 0:
            unit, factor = name, UNITS[name]
    return f"{size // factor}{unit}"


def _read(value: object) -> object:
    return bytes_of(value) if isinstance(value, str) else value


_READ = BeforeValidator(_read, json_schema_input_type=int | str)
ByteSize = Annotated[int, _READ]
"""The type of a field that takes sizes; its value is a number of bytes."""


def is_size(field: FieldInfo) -> bool:
    """Returns whether the field is a `ByteSize`."""
    return _READ in field.metadata
