"""What is wrong with a configuration: all of it at once, field by field, an unknown key with the nearest known one."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ps.errors import ConfigError

Problem = tuple[str, str]
"""The field, dotted as in YAML, empty where it is the value as a whole; and what is wrong with it."""


def refused(name: str, error: ValidationError, fields: Collection[str]) -> ConfigError:
    """What to raise for a model of that name with these fields."""
    problems = tuple(problem for found in error.errors() for problem in _problems(found, fields))
    text = "; ".join(f"{field or 'value'}: {says}" for field, says in problems)
    return ConfigError(f"{name}: {text}", problems)


def _problems(found: Any, fields: Collection[str]) -> tuple[Problem, ...]:
    location = [str(part) for part in found["loc"]]
    inner = found.get("ctx", {}).get("error")
    if isinstance(inner, ConfigError):  # of a model within; where there is a choice its kind comes after the field
        return tuple((".".join(filter(None, [*location[:1], field])), says) for field, says in inner.problems)
    name = ".".join(location)
    if found["type"] == "extra_forbidden":
        return ((name, f"no such setting (got {found['input']!r}){_nearest(name, fields)}"),)
    says = found["msg"].removeprefix("Value error, ")
    return ((name, f"{says} (got {found['input']!r})" if location else says),)


def _nearest(name: str, fields: Collection[str]) -> str:
    near = get_close_matches(name, fields, 1)
    return f"; do you mean {near[0]}?" if near else f"; there are: {', '.join(fields)}"
