"""What is wrong with a configuration: all of it at once, field by field. An unknown name comes with the nearest one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ps.errors import ConfigError
from ps.quoting import shown

MOST = 32
"""Problems that an error names. A configuration has fewer settings."""
LONGEST_NAME = 64

Problem = tuple[str, str]
"""The field, dotted as in YAML, empty where it is the value as a whole; and what is wrong with it."""


def refused(name: str, error: ValidationError, fields: Collection[str], elsewhere: Mapping[str, str]) -> ConfigError:
    """The error to raise for a model of that name, with these fields. `elsewhere`: names that do not belong here -> the
    dotted name of the setting that they stand for."""
    found = error.errors(include_url=False)
    problems = tuple(problem for one in found[:MOST] for problem in _problems(one, fields, elsewhere))
    if len(found) > MOST:
        problems += (("...", f"and {len(found) - MOST:,} more"),)
    text = "; ".join(f"{field or 'value'}: {says}" for field, says in problems)
    return ConfigError(f"{name}: {text}", problems)


def _problems(found: Any, fields: Collection[str], elsewhere: Mapping[str, str]) -> tuple[Problem, ...]:
    location = [_cut(str(part)) for part in found["loc"]]
    inner = found.get("ctx", {}).get("error")
    if isinstance(inner, ConfigError):  # of a model within; where there is a choice its kind comes after the field
        return tuple((".".join(filter(None, [*location[:1], field])), says) for field, says in inner.problems)
    name = ".".join(location)
    if found["type"] == "extra_forbidden":
        if name in elsewhere:
            return ((name, f"is now {elsewhere[name]} (got {shown(found['input'])})"),)
        return ((name, f"no such setting (got {shown(found['input'])}){_nearest(name, fields, elsewhere)}"),)
    says = found["msg"].removeprefix("Value error, ")
    return ((name, f"{says} (got {shown(found['input'])})" if location else says),)


def _cut(name: str) -> str:
    """The name whole where it is one of ours; of any other, enough to find it."""
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."


def _nearest(name: str, fields: Collection[str], elsewhere: Mapping[str, str]) -> str:
    near = get_close_matches(name, [*fields, *elsewhere], 1)
    return f"; do you mean {elsewhere.get(near[0], near[0])}?" if near else f"; there are: {', '.join(fields)}"
