"""Settings with their defaults and descriptions, as commented YAML. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ps.config.sizes import is_size, written

WIDTH = 100


def documented(model: type[BaseModel]) -> Iterator[str]:
    """Yields the lines of a file that sets every field to its default; required fields are commented out."""
    yield from _comment(model.__doc__ or "")
    yield from _fields(model)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield ""
        yield from _comment(field.description or "")
        yield from _setting(name, field)


def _setting(name: str, field: FieldInfo) -> Iterator[str]:
    if field.is_required():
        yield f"# {name}:    required"
        return
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel) and field.annotation is type(default):  # one kind of value only: its parts too
        yield f"{name}:"
        yield from (f"  {line}".rstrip() for line in _fields(type(default)))
        return
    if isinstance(default, BaseModel):
        value: object = default.model_dump(mode="json")
    else:
        value = written(default) if is_size(field) and default else default
    yield from yaml.safe_dump({name: value}, sort_keys=False).splitlines()


def _comment(text: str) -> Iterator[str]:
    yield from (f"# {line}" for line in textwrap.wrap(" ".join(text.split()), WIDTH))
