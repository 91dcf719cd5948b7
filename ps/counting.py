"""Counters, each declared once: a field of a dataclass, with what it counts, its unit, and the name of its metric.

`stats()`, the Prometheus metrics and the table of metrics in docs/operations.md are made from the declarations. To add
a counter to a class that has some: one line there, and a `+=` where it is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Declared:
    """One counter, as it was declared."""

    name: str
    """The field, and the key in `stats()`."""
    help: str
    unit: str
    metric: str | None
    """The metric's name, without the `_total` that Prometheus gives a counter; None where it is in `stats()` alone."""


def counter(help_: str, unit: str = "rows", metric: str | None = None) -> Any:
    """Declares a counter, which is a metric too: `ps_` and the field's name unless `metric` is given."""
    return field(default=0, metadata={"declared": (help_, unit, True, metric)})


def figure(help_: str, unit: str) -> Any:
    """Declares a number that is in `stats()` and no metric."""
    return field(default=0, metadata={"declared": (help_, unit, False, None)})


def declared(of: type[Any]) -> list[Declared]:
    """Returns the declarations of a dataclass, in their order."""
    found = []
    for each in fields(of):
        help_, unit, is_metric, metric = each.metadata["declared"]
        found.append(Declared(each.name, help_, unit, (metric or f"ps_{each.name}") if is_metric else None))
    return found
